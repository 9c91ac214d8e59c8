//! The templates of `wasmbox new` with their compilers, and the tutorials on them; and other toolchains. `make languages` gets these, and runs it.
//! What Rust and WAT promise is tested in new.rs.

use std::{fs, process::Command};

use wasmbox_tests::{
    Authority, Request, Upstream, WasmBox,
    client::VERSIONS,
    languages::{LANGUAGES, language, measure},
    project::Project,
    toolchains::{self, TOOLCHAINS, toolchain},
    tutorial, workspace,
};

/// Its own test, twice: the second time what was installed is there already. Then what its function takes.
fn passes_its_test(name: &str) {
    let project = Project::new("hello", name);
    for _ in 0..2 {
        let tested = project.test();
        assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
        assert!(String::from_utf8_lossy(&tested.stdout).contains("hello answers as expected"), "{tested:?}");
    }
    measure(language(name), &project);
}

macro_rules! tests {
    (measured: $($measured:ident)*; followed: $($followed:ident)*) => {
        $(#[test]
        fn $measured() {
            measure(language(stringify!($measured)), &Project::new("hello", stringify!($measured)));
        })*
        $(#[test]
        fn $followed() {
            passes_its_test(stringify!($followed));
            tutorial::follow(stringify!($followed));
        })*
        #[test]
        fn each_language_has_its_test() {
            let tests = [$(stringify!($measured),)* $(stringify!($followed)),*];
            assert_eq!(LANGUAGES.map(|language| language.name), tests);
        }
    };
}

tests!(measured: wat rust; followed: go c assemblyscript js python);

macro_rules! others {
    ($($name:ident $directory:literal)*; all: $($large:ident $large_directory:literal)*) => {
        $(#[test]
        fn $name() {
            toolchains::measure(toolchain($directory));
        })*
        $(#[test]
        #[ignore = "large: LANGUAGES=all make languages"]
        fn $large() {
            toolchains::measure(toolchain($large_directory));
        })*
        #[test]
        fn each_toolchain_has_its_test() {
            let tests = ["go-cgi", $($directory,)* $($large_directory),*];
            assert!(TOOLCHAINS.iter().all(|toolchain| tests.contains(&toolchain.name)));
            assert_eq!(TOOLCHAINS.len(), tests.len());
        }
    };
}

others!(
    rust_wstd "rust-wstd" rust_p3 "rust-p3" cpp "cpp" zig "zig";
    all: rust_spin "rust-spin" cpython "cpython" esbuild "esbuild"
);

/// Go's own library for CGI, with the methods of a REST resource.
#[test]
fn go_cgi() {
    let server = toolchains::measure(toolchain("go-cgi"));
    for version in VERSIONS {
        server.speak(version);
        let call = |method: &str, path: &str, body: &str| {
            server.call(Request::builder().method(method).uri(path), body.to_owned())
        };
        let got = call("GET", "/hello/Ada", "").ok();
        assert_eq!((got.text(), got.header("etag")), ("Hello, Ada!\n", "\"Ada\""));
        let put = call("PUT", "/hello/Ada", "Lovelace");
        assert_eq!((put.status, put.text()), (201, "Ada has 8 bytes\n"));
        assert_eq!((call("DELETE", "/hello/Ada", "").status, call("GET", "/hello", "").status), (204, 404));
        let refused = call("POST", "/hello/Ada", "x");
        assert_eq!((refused.status, refused.header("allow")), (405, "GET, HEAD, PUT, DELETE, OPTIONS"));
    }
}

/// What programs end with when they end badly, as their compilers make it.
#[test]
fn codes_of_failures() {
    let failing = |language: &str, file: &str, old: &str, new: &str| {
        let project = Project::new("hello", language);
        project.replace(file, old, new);
        let built = project.run(&["build"], b"");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        fs::read(project.path().join("functions/hello.wasm")).expect("a module")
    };
    let c = |end: &str| {
        failing(
            "c",
            "src/main.c",
            "#include <stdio.h>\n",
            &format!(
                "#include <stdio.h>\n#include <stdlib.h>\n__attribute__((constructor)) static void end(void) {{ {end}; }}\n"
            ),
        )
    };
    let script =
        |end: &str| failing("assemblyscript", "assembly/index.ts", "const buffer", &format!("{end};\nconst buffer"));
    let server = WasmBox::launch()
        .function("exit.wasm", c("exit(-1)"))
        .function("abort.wasm", c("fputs(\"out of luck\\n\", stderr); abort()"))
        .function("throw.wasm", script("if (name != \"\") throw new Error(\"out of luck\")"))
        .start();
    for version in VERSIONS {
        server.speak(version);
        assert_eq!(server.get("/exit").problem(500, "guest-exit").member("exit_code"), 255);
        server.get("/abort").problem(500, "guest-trap").names(&["unreachable", "out of luck"]);
        let thrown = server.get("/throw").problem(500, "guest-exit");
        thrown.names(&["out of luck"]);
        assert_eq!(thrown.member("exit_code"), 255);
    }
    let document = fs::read_to_string(workspace::root().join("docs/languages.md")).expect("the document");
    for row in [
        "| `exit(-1)` in C | 500 `guest-exit`, `exit_code` 255",
        "| `abort()` in C, a panic in Rust | 500 `guest-trap`, with the last lines",
        "| `throw` in AssemblyScript, with `@assemblyscript/wasi-shim` | 500 `guest-exit`, `exit_code` 255, with the message |",
    ] {
        assert!(document.contains(row), "{row}");
    }
}

/// The module of an example, built as examples/README.md says; and its settings, with a directory and an API of the test's.
fn example(name: &str, settings: &str) -> (Vec<u8>, String) {
    let examples = workspace::root().join("examples");
    let made = Command::new("make").arg(name).current_dir(&examples).output().expect("make runs");
    assert!(made.status.success(), "make {name}: {}", String::from_utf8_lossy(&made.stderr));
    let module = fs::read(examples.join(format!("functions/{name}.wasm"))).expect("it was built");
    (module, fs::read_to_string(examples.join(settings)).expect("the example's settings"))
}

/// Counts each call, asks an API by https, and streams its answer.
fn calls_an_api(name: &str) {
    let (module, settings) = example(name, "api.toml");
    let authority = Authority::new();
    let api = Upstream::secure("127.0.0.1:0", authority.server(&["127.0.0.1"], &["h2", "http/1.1"]));
    let launch = WasmBox::launch();
    let directory = launch.directory().to_owned();
    fs::create_dir(directory.join("data")).expect("a new directory");
    authority.write(&directory.join("ca.pem"));
    let settings = settings
        .replace("https://api.example.com/", &format!("https://{}/steps?50", api.address()))
        .replace("api.example.com:443", &api.address().to_string())
        .replace("/srv/data", &directory.join("data").display().to_string());
    let server = launch
        .function(&format!("{name}.wasm"), module)
        .function(&format!("{name}.toml"), settings)
        .flag("--preopen-root", directory.join("data").display())
        .flag("--allow-outbound", api.address())
        .flag("--outbound-ca", directory.join("ca.pem").display())
        .start();
    for visit in 1..3 {
        let mut wire = server.wire(format!("GET /{name} HTTP/1.1\r\nHost: box\r\n\r\n"));
        assert_eq!(wire.head().status, 200, "{}", server.log());
        let counted = format!("visit {visit}\n");
        let first = wire.chunk().expect("a chunk").expect("not the end");
        assert_eq!(String::from_utf8_lossy(&first), counted, "it comes before the API has answered");
        let mut rest = Vec::new();
        while let Some(chunk) = wire.chunk().expect("a whole answer") {
            rest.extend(chunk);
        }
        assert_eq!(String::from_utf8_lossy(&rest), "the API says 200: step step step step step \n");
        let kept = fs::read_to_string(directory.join("data").join(name)).expect("the counter");
        assert_eq!(kept, format!("{visit}\n"));
    }
    assert_eq!(api.requests(), 2);
}

#[test]
fn an_api_from_rust() {
    calls_an_api("rust-api");
}

#[test]
fn an_api_from_js() {
    calls_an_api("js-api");
}

#[test]
fn an_api_from_python() {
    calls_an_api("python-api");
}

/// Go has no way to others: see examples/README.md.
#[test]
fn a_counter_and_a_stream_in_go() {
    let (module, settings) = example("go-api", "go-api/go-api.toml");
    let launch = WasmBox::launch();
    let directory = launch.directory().to_owned();
    fs::create_dir(directory.join("data")).expect("a new directory");
    let settings = settings.replace("/srv/data", &directory.join("data").display().to_string());
    let server = launch
        .function("go-api.wasm", module)
        .function("go-api.toml", settings)
        .flag("--preopen-root", directory.join("data").display())
        .start();
    for visit in 1..3 {
        let mut wire = server.wire("GET /go-api HTTP/1.1\r\nHost: box\r\n\r\n");
        let head = wire.head();
        assert_eq!((head.status, &head.headers["transfer-encoding"]), (200, &"chunked".parse().expect("a value")));
        let mut chunks = Vec::new();
        while let Some(chunk) = wire.chunk().expect("a whole answer") {
            chunks.push(String::from_utf8(chunk).expect("text"));
        }
        assert_eq!(chunks.concat(), format!("visit {visit}\none\ntwo\nthree\n"));
        assert!(chunks.len() > 1, "it came at once: {chunks:?}");
    }
}
