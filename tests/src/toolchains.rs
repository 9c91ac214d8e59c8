//! Toolchains for which `wasmbox new` has no template, and programs that others have built: `tests/languages/others` has a directory for each,
//! whose `build.sh` makes a module, and prints what made it.

use std::{fs, process::Command};

use crate::{
    WasmBox,
    languages::{Call, Function, succeeded},
    project::output,
    temporary::TempDir,
    workspace,
};

/// One of them, with how its function fails.
pub struct Toolchain {
    /// Its directory.
    pub name: &'static str,
    /// What made it, without its version, and what that makes.
    pub toolchain: &'static str,
    pub makes: &'static str,
    works: Call,
    fails: Call,
}

const COMMAND: &str = "command, WASI preview 1";

/// As all functions of this kind do it.
const GREETS: Call = Call { path: "hello?arg=Ada", body: "12345", answer: "Hello, Ada! You sent 5 bytes." };
const FAILS: Call = Call { path: "hello?arg=fail", body: "", answer: "out of luck" };

const fn greeting(name: &'static str, toolchain: &'static str, makes: &'static str) -> Toolchain {
    Toolchain { name, toolchain, makes, works: GREETS, fails: FAILS }
}

/// All of them, in the order of the table.
pub const TOOLCHAINS: [Toolchain; 8] = [
    greeting("rust-wstd", "wstd", "HTTP component, WASI 0.2"),
    greeting("rust-p3", "wasip3", "HTTP component, WASI 0.3"),
    greeting("rust-spin", "spin-sdk", "HTTP component, WASI 0.3"),
    Toolchain {
        works: Call { path: "hello/Ada", body: "", answer: "Hello, Ada!" },
        fails: Call { path: "hello/fail", ..FAILS },
        ..greeting("go-cgi", "Go net/http/cgi", COMMAND)
    },
    greeting("cpp", "clang++", COMMAND),
    greeting("zig", "Zig", COMMAND),
    greeting("cpython", "CPython", COMMAND),
    Toolchain {
        works: Call { path: "hello", body: "const a: number = 1; export default a", answer: "const a = 1;" },
        fails: Call { path: "hello", body: "const const", answer: "Expected identifier" },
        ..greeting("esbuild", "esbuild", COMMAND)
    },
];

/// That one.
///
/// # Panics
/// If there is none of this name.
pub fn toolchain(name: &str) -> &'static Toolchain {
    TOOLCHAINS.iter().find(|toolchain| toolchain.name == name).unwrap_or_else(|| panic!("no toolchain {name}"))
}

/// Builds its function and serves it as `hello`, calls it, and leaves its row.
///
/// # Panics
/// If it cannot be built, or does not answer, or does not fail when it is asked to.
pub fn measure(toolchain: &Toolchain) -> WasmBox {
    let sources = workspace::root().join("tests/languages/others").join(toolchain.name);
    let made = TempDir::new();
    let module = made.path().join("hello.wasm");
    // What it gets and builds is kept for the next time.
    let kept = workspace::root().join("target/languages/others").join(toolchain.name);
    fs::create_dir_all(&kept).expect("a directory of the workspace");
    let built = output(Command::new(sources.join("build.sh")).arg(&module).arg(&kept), b"");
    let by = succeeded(built);
    let by = by.lines().last().unwrap_or_default();
    assert!(by.starts_with(toolchain.toolchain), "{}: {by:?} is not its version", toolchain.name);
    let bytes = fs::read(&module).expect("it was built");
    let server = WasmBox::launch()
        .function("hello.wasm", &bytes)
        .function("hello.toml", fs::read(sources.join("function.toml")).expect("its settings"))
        .start();
    let Toolchain { name, makes, works, fails, .. } = *toolchain;
    Function { name, toolchain: by, makes, bytes: bytes.len(), works, fails }.measure(&server);
    server
}
