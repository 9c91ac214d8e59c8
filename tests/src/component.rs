//! The wasi:http guest of `guests/`, built on first use.

use std::{env, fs, process::Command, sync::OnceLock};

use crate::workspace;

/// The component that does what the path says.
///
/// # Panics
/// With what to do about it, if it cannot be built.
pub fn http_guest() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let target = workspace::root().join("target/test-guests");
        // Of several tests that come here at once, in other processes too, one builds: cargo locks its target directory.
        let build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--quiet", "--locked", "--release", "--target=wasm32-wasip2", "--target-dir"])
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
        fs::read(target.join("wasm32-wasip2/release/http_guest.wasm")).expect("cargo has just built it")
    })
}
