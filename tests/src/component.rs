//! The components of `guests/`, built on first use.

use std::{
    env, fs,
    path::PathBuf,
    process::Command,
    sync::{LazyLock, OnceLock},
};

use crate::workspace;

/// The wasi:http component of WASI 0.2 that does what the path says.
///
/// # Panics
/// With what to do about it, if it cannot be built.
pub fn http_guest() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| read("http_guest.wasm"))
}

/// The wasi:http component of WASI 0.3 that does what the path says.
///
/// # Panics
/// As [`http_guest`].
pub fn p3_guest() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| read("p3_guest.wasm"))
}

/// The command of WASI 0.3 that does what its first argument says.
///
/// # Panics
/// As [`http_guest`].
pub fn p3_command() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| read("examples/p3_command.wasm"))
}

/// The wasi:http component of WASI 0.2 that keeps values, as the path says.
///
/// # Panics
/// As [`http_guest`].
pub fn keyvalue_guest() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| read("keyvalue_guest.wasm"))
}

/// The wasi:http component of WASI 0.3 that keeps values.
///
/// # Panics
/// As [`http_guest`].
pub fn p3_keyvalue_guest() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| read("examples/p3_keyvalue.wasm"))
}

fn read(file: &str) -> Vec<u8> {
    fs::read(BUILT.join(file)).expect("cargo has just built it")
}

/// The directory with all of them.
static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
    let target = workspace::root().join("target/test-guests");
    // Of several tests that come here at once, in other processes too, one builds: cargo locks its target directory.
    let build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--locked", "--release", "--workspace", "--lib", "--examples"])
        .args(["--target=wasm32-wasip2", "--target-dir"])
        .arg(&target)
        .current_dir(workspace::root().join("tests/guests"))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .expect("cargo can be run");
    assert!(
        build.status.success(),
        "cannot build tests/guests (does `rustup target add wasm32-wasip2` help?):\n{}",
        String::from_utf8_lossy(&build.stderr)
    );
    target.join("wasm32-wasip2/release")
});
