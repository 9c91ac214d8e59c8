//! What can never be called is refused before it is compiled: each of these modules would take minutes and gigabytes to compile.

use std::{fs, process::Command};

use wasmbox_tests::{
    WasmBox,
    binary::{exhausting_component, exhausting_library, exhausting_with_table},
    client::VERSIONS,
    project::output,
    server::Launch,
    workspace,
};

/// One whose entry point is as it should be, beside what is given.
fn component(parts: &str) -> Vec<u8> {
    exhausting_component(&format!(
        r#"(component {parts}
            (core module $entry (func (export "f") (result i32) i32.const 0))
            (core instance $entry (instantiate $entry))
            (func $f (result (result)) (canon lift (core func $entry "f")))
            (instance $run (export "run" (func $f)))
            (export "wasi:cli/run@0.2.0" (instance $run)))"#
    ))
}

/// Each with what is said of it.
fn unusable() -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    let of = |instance: &str, function: &str| format!(r#"(import "{instance}" (instance (export "f" {function})))"#);
    let with_table = |elements| format!("(core module (table {elements} funcref))");
    let instances = |count: usize, of: &str| {
        format!("(core module $many {of}) {}", "(core instance (instantiate $many))".repeat(count))
    };
    vec![
        ("library", exhausting_library(), &["`_start` without parameters", "WASI command"]),
        (
            "table",
            exhausting_with_table(100_001),
            &["100001 elements", "100000", "-Wl,--gc-sections", "several functions"],
        ),
        ("inner-table", component(&with_table(200_000)), &["200000 elements", "-Wl,--gc-sections"]),
        ("tables", component(&instances(5, &"(table 1 funcref)".repeat(9))), &["45 tables", "40", "wac"]),
        ("memories", component(&instances(5, "(memory 1)")), &["5 memories", "4", "wac"]),
        ("instances", component(&instances(40, "")), &["41 core modules", "40", "wac"]),
        ("nothing", exhausting_component("(component)"), &["wasi:http/incoming-handler", "wasi:cli/run"]),
        (
            "keyvalue",
            component(&of("wasi:keyvalue/store@0.2.0-draft", "(func)")),
            &["wasi:keyvalue", "--keyvalue-dir", "KEYVALUE_REDIS"],
        ),
        ("p3", component(&of("wasi:random/random@0.3.0", "(func)")), &["WASI 0.3", "--wasi-p3", "WASI_P3=true"]),
    ]
}

fn launch() -> Launch {
    unusable()
        .into_iter()
        .fold(WasmBox::launch(), |launch, (name, module, _)| launch.function(&format!("{name}.wasm"), module))
}

#[test]
fn by_the_box() {
    let server = launch().flag("--wasi-p3", false).start();
    for version in VERSIONS {
        server.speak(version);
        for (name, _, said) in unusable() {
            server.get(&format!("/{name}")).problem(422, "module-invalid").names(said);
        }
    }
    let metrics = server.metrics();
    let ended = |result: &str| metrics.sum("wasmbox_compilations_total", &[result]);
    // Each once, also if it is asked for again.
    assert_eq!(ended("result=\"invalid\""), unusable().len() as f64);
    assert_eq!(ended(""), unusable().len() as f64, "nothing else became of them");
}

/// What is off here is on there: then it is compiled, which does not end.
#[test]
fn what_the_operator_turns_on_is_compiled() {
    let launch = launch().flag("--compile-time", "1s").flag("--tiers", "off");
    let kept = launch.directory().join("kept");
    let server = launch.flag("--keyvalue-dir", kept.display()).start();
    for name in ["keyvalue", "p3"] {
        server.get(&format!("/{name}")).problem(422, "module-invalid").names(&["--compile-"]);
    }
    assert_eq!(server.metrics().sum("wasmbox_compilations_total", &["result=\"failed\""]), 2.0);
}

#[test]
fn by_the_command_that_compiles_ahead() {
    let launch = launch();
    let functions = launch.functions();
    // Its place is the serving box's, which compiles it.
    fs::remove_file(functions.join("keyvalue.wasm")).expect("it was written");
    let mut command = Command::new(workspace::wasmbox());
    command
        .args(["compile", "--wasi-p3=false", "--functions-dir"])
        .arg(&functions)
        .arg("--cache-dir")
        .arg(launch.cache());
    let ran = output(&mut command, b"");
    let told = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{told}");
    for (name, _, said) in unusable().into_iter().filter(|(name, ..)| *name != "keyvalue") {
        let line = told.lines().find(|line| line.starts_with(&format!("{name}.wasm: not compiled")));
        let line = line.unwrap_or_else(|| panic!("no line of {name}: {told}"));
        assert!(said.iter().all(|part| line.contains(part)), "{line}");
    }
}
