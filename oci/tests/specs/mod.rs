//! Specs that containerd wrote: by CRI for a pod with the annotation `wasmbox.dev/container: user-container`, and by `ctr run --net-host`.
//! Ids, directories and names are replaced; of nothing else was anything left out.

/// What it is: its file's name without the version.
pub struct Captured {
    pub name: &'static str,
    pub text: &'static str,
}

macro_rules! captured {
    ($($name:literal),* $(,)?) => {
        [$(Captured { name: $name, text: include_str!(concat!($name, ".json")) }),*]
    };
}

pub const SPECS: [Captured; 8] =
    captured!["sandbox-1.6", "sandbox-1.7", "sidecar-1.6", "sidecar-1.7", "box-1.6", "box-1.7", "ctr-1.6", "ctr-1.7",];
