//! Functions that are put into a box that runs, through the admin port.

mod command;
mod hostile;
mod interrupted;
mod logs;
mod names;
mod progress;
mod races;
mod requests;
mod service;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, header, request::Builder};
use serde_json::Value;
use wasmbox_tests::{Answer, Request, WasmBox, client::exchange, eventually, server::Launch};

const TOKEN: &str = "0123456789abcdef-the-token";

/// A box into which functions may be put.
fn launch() -> Launch {
    let launch = WasmBox::launch();
    let file = token_file(&launch);
    fs::write(&file, format!("{TOKEN}\n")).expect("a file");
    launch.flag("--upload-token-file", file.display())
}

fn token_file(launch: &Launch) -> PathBuf {
    launch.directory().join("token")
}

/// With the token.
fn request(method: Method, path: &str) -> Builder {
    Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
}

fn ask(server: &WasmBox, request: Builder, body: impl Into<Bytes>) -> Answer {
    exchange(server.admin_address(), request, body).expect("a whole answer")
}

fn put(server: &WasmBox, name: &str, module: impl Into<Bytes>) -> Answer {
    ask(server, request(Method::PUT, &format!("/functions/{name}")), module)
}

/// The same, again while there is no place.
fn put_patiently(server: &WasmBox, name: &str, module: impl Into<Bytes>) -> Answer {
    let module = module.into();
    loop {
        let answer = put(server, name, module.clone());
        if answer.status != 503 {
            return answer;
        }
        answer.problem(503, "uploads-busy");
        thread::sleep(Duration::from_millis(200));
    }
}

fn get(server: &WasmBox, path: &str) -> Answer {
    ask(server, request(Method::GET, path), "")
}

fn delete(server: &WasmBox, path: &str) -> Answer {
    ask(server, request(Method::DELETE, path), "")
}

fn roll_back(server: &WasmBox, name: &str, query: &str) -> Answer {
    ask(server, request(Method::POST, &format!("/functions/{name}/rollback{query}")), "")
}

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).expect("a JSON document")
}

/// The ETag, in its quotes.
fn etag(answer: &Answer) -> String {
    answer.header("etag").to_owned()
}

fn versions(server: &WasmBox, name: &str) -> Vec<Value> {
    let answer = get(server, &format!("/functions/{name}/versions")).ok();
    json(&answer).as_array().expect("a list").clone()
}

/// What uploads have there now.
fn unfinished(functions: &Path) -> Vec<PathBuf> {
    let uploads = functions.join(".wasmbox/uploads");
    fs::read_dir(uploads).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Nothing of an upload is left, and nothing but what serves lies beside the functions.
fn assert_nothing_left(functions: &Path, expected: &[&str]) {
    eventually("nothing of an upload is left", || unfinished(functions).is_empty().then_some(()));
    let mut names: Vec<String> = fs::read_dir(functions)
        .expect("the directory")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name != ".wasmbox")
        .collect();
    names.sort();
    assert_eq!(names, expected);
}

/// Descriptors of the box that lead into what uploads have made.
fn descriptors(server: &WasmBox) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", server.process().0)).expect("it runs");
    let leads = |path: PathBuf| fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains(".wasmbox"));
    descriptors.flatten().filter(|entry| leads(entry.path())).count()
}
