//! Every error that a client can be told, each provoked over HTTP; those of the admin port are in `upload`.
//!
//! - [`request`]: what is wrong with a request; [`module`]: with a module; [`invocation`]: with what a guest does
//! - [`server`]: nothing is, but the box has no place, no time, or not what it needs

mod invocation;
mod module;
mod request;
mod server;

use std::{fs, path::PathBuf};

use wasmbox_tests::{WasmBox, eventually, guest, workspace};

/// The server holds all requests back that come while one of 64 MiB runs; there is place for one to wait.
fn narrow(queue: u64) -> WasmBox {
    let server = WasmBox::launch()
        .function("sleeping.wat", guest::sleeping())
        .function("hello.wat", guest::hello())
        .flag("--memory-request", 64)
        .flag("--concurrent-resource-request", 64)
        .flag("--queue-depth-resource-units", queue)
        .start();
    server.get("/hello").ok();
    server.wait_until_idle();
    server
}

/// A box whose function `hello` was granted a directory that is gone since; its file `garbage.wasm` is no module.
fn without_its_preopen() -> WasmBox {
    let launch = WasmBox::launch().function("hello.wat", guest::hello()).function("garbage.wasm", "garbage");
    let root = launch.directory().join("root");
    let granted = root.join("granted");
    fs::create_dir_all(&granted).expect("a new directory");
    let settings = format!("preopens = [{{ host = '{}', guest = '/data' }}]", granted.display());
    let server = launch.function("hello.toml", settings).flag("--preopen-root", root.display()).start();
    server.get("/hello").ok();
    fs::remove_dir(&granted).expect("the directory is empty");
    server
}

/// An error tells its client nothing of where things lie on the server.
#[test]
fn errors_name_no_directory_of_the_server() {
    let server = without_its_preopen();
    let directory = server.launched().directory().display().to_string();
    for path in ["/hello", "/garbage", "/nothing", "/.hidden"] {
        let answer = server.get(path);
        assert!(answer.status >= 400 && !answer.text().contains(&directory), "{path}: {answer:?}");
    }
}

/// The answer and the log name the same invocation, and the metrics count it.
#[test]
fn an_error_is_logged_and_counted() {
    let server = WasmBox::with("trap.wat", guest::command("unreachable"));
    let answer = server.get("/trap");
    let id = answer.header("wasmbox-invocation-id");
    server.logged(&["invocation", id, "trap", "500", "guest-trap", "unreachable"]);
    eventually("it is counted, which is after it is logged", || {
        let counted = server.metrics().sum("wasmbox_invocations_total", &["function=\"trap\"", "status=\"500\""]);
        (counted == 1.0).then_some(())
    });
    server.get("/nothing").problem(404, "module-not-found");
    assert_eq!(server.metrics().sum("wasmbox_rejected_total", &["code=\"module-not-found\""]), 1.0);
    server.logged(&["invocation", "404", "module-not-found"]);
}

/// Each code that docs/errors.md lists, which are all that the server has (`cli/help.rs`), is provoked by these tests, or, if it is of the admin
/// port, by those of uploads.
#[test]
fn every_code_is_provoked() {
    let root = workspace::root();
    let read = |path: PathBuf| fs::read_to_string(path).expect("a text of the repository");
    let list = read(root.join("docs/errors.md"));
    let codes: Vec<&str> = list.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert!(codes.len() >= 22, "{codes:?}");
    let sources = |tests: &str| fs::read_dir(root.join("tests/tests").join(tests)).expect("a directory of tests");
    let entries = ["errors", "upload"].into_iter().flat_map(sources);
    let provoked: String = entries.map(|entry| read(entry.expect("an entry").path())).collect();
    for code in codes {
        assert!(provoked.contains(&format!(", \"{code}\")")), "{code} is not provoked");
    }
}
