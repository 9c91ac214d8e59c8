//! Where the things under test are.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The workspace's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the workspace")
}

/// The server's binary: `WASMBOX_BIN`, else the workspace's release build.
///
/// # Panics
/// With what to do about it, if there is none.
pub fn wasmbox() -> PathBuf {
    let named = env::var_os("WASMBOX_BIN").map(PathBuf::from);
    let path = named.unwrap_or_else(|| root().join("target/release/wasmbox"));
    assert!(
        path.is_file(),
        "{} is not there: run `cargo build --release -p wasmbox`, or name a binary with WASMBOX_BIN",
        path.display()
    );
    path
}

/// A built example, `rust-hello.wasm` for instance.
///
/// # Panics
/// With what to do about it, if it is not built.
pub fn example(file: &str) -> PathBuf {
    let path = root().join("examples/functions").join(file);
    assert!(path.is_file(), "{} is not there: run `make -C examples`", path.display());
    path
}

/// A static binary, as `make install` puts it on a node: `wasmbox`, or the shim.
///
/// # Panics
/// With what to do about it, if it is not built.
pub fn installed(name: &str) -> PathBuf {
    let path = root().join("target/static").join(name);
    assert!(path.is_file(), "{} is not there: run `make static`", path.display());
    path
}

/// Something that the tests need, below `target/tools`.
///
/// # Panics
/// With what to do about it, if it is not there.
pub fn tool(path: &str) -> PathBuf {
    let path = root().join("target/tools").join(path);
    assert!(path.exists(), "{} is not there: run tests/install-debian.sh", path.display());
    path
}
