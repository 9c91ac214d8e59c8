use super::*;
use crate::engine::{EngineSize, Engines};

fn said(text: &str) -> String {
    let engines = Engines::new(EngineSize::for_compiling(), false).unwrap();
    let bytes = wat::parse_str(text).unwrap();
    let checked = if text.starts_with("(component") {
        check_component(engines.plain(), &bytes, OptionalInterfaces::ALL).map(drop)
    } else {
        check_module(engines.plain(), &bytes)
    };
    checked.err().map(|error| format!("{error:#}")).unwrap_or_default()
}

#[test]
fn modules() {
    let start = r#"(func (export "_start"))"#;
    assert_eq!(said(&format!("(module {start})")), "");
    let random = r#"(import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32)))"#;
    assert_eq!(said(&format!("(module {random} {start})")), "");
    let unknown = said(&format!(r#"(module (import "env" "emscripten" (func)) {start})"#));
    assert!(unknown.contains("env::emscripten"), "{unknown}");
    let browser = said(&format!(r#"(module (import "gojs" "runtime.wasmExit" (func (param i32))) {start})"#));
    assert!(browser.contains("GOOS=wasip1"), "{browser}");
    for other in ["", r#"(func (export "_start") (param i32))"#, r#"(memory (export "_start") 1)"#] {
        assert_eq!(said(&format!("(module {other})")), Unusable::NoStart.to_string(), "{other}");
    }
    let pools = |defined: &str| said(&format!("(module {start} {defined})"));
    assert_eq!(pools("(table 100000 funcref)"), "");
    assert!(pools("(table 100001 funcref)").contains("100001 elements"));
    assert!(pools(&"(table 1 funcref)".repeat(17)).contains("17 tables"));
    assert!(pools(&"(memory 1)".repeat(5)).contains("5 memories"));
    assert!(said(&format!("(module {start} (func (drop)))")).contains("type mismatch"));
}

#[test]
fn components() {
    let no_entry_point = Unusable::NoEntryPoint.to_string();
    assert_eq!(said("(component)"), no_entry_point);
    let importing = |name: &str, items: &str| format!(r#"(component (import "{name}" (instance {items})))"#);
    let (function, resource, kind) =
        (r#"(export "f" (func))"#, r#"(export "r" (type (sub resource)))"#, r#"(export "t" (type (eq 0)))"#);
    for items in [function, resource] {
        for name in ["wasi:cli/stdout@0.2.9", "wasi:cli/stdout@0.2.9+built"].into_iter().chain(OTHERS) {
            assert_eq!(said(&importing(name, items)), no_entry_point);
        }
        let foreign = said(&importing("fermyon:spin/key-value@2.0.0", items));
        assert!(foreign.contains("Spin") && foreign.contains("wasi:keyvalue/store@0.2.0-draft"), "{foreign}");
        for missing in [
            "wasi:keyvalue/store@0.2.0",
            "wasi:cli/stdout@0.3.0-rc-2025-09-16",
            "wasi:io/streams@0.3.0",
            "wasi:keyvalue/watcher@0.2.0-draft",
            "wasi:config/runtime@0.2.0-draft",
            "own:package/interface",
            "plain",
        ] {
            assert!(said(&importing(missing, items)).contains(missing), "{missing}");
        }
    }
    assert_eq!(said(&importing("own:package/types", &format!("(type u8) {kind}"))), no_entry_point);
    assert!(said("(component (core module (func (drop))))").contains("type mismatch"));
    // Those of a component inside are satisfied there.
    let inner = format!("(component {})", importing("own:package/interface", function));
    assert_eq!(said(&inner), no_entry_point);
}

#[test]
fn what_is_called() {
    let exporting = |name: &str, function: &str| {
        format!(
            r#"(component (core module $m (func (export "f"))) (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i "f")))
            (instance $exported (export "{function}" (func $f))) (export "{name}" (instance $exported)))"#
        )
    };
    for (name, function) in [
        ("wasi:cli/run@0.2.0", "run"),
        ("wasi:cli/run@0.2.6+built", "run"),
        ("wasi:cli/run@0.3.0", "run"),
        ("wasi:http/incoming-handler@0.2.3", "handle"),
        ("wasi:http/handler@0.3.0", "handle"),
    ] {
        assert_eq!(said(&exporting(name, function)), "", "{name}");
    }
    for (name, function) in [
        ("wasi:cli/run@0.2.0", "runs"),
        ("wasi:cli/run@0.3.0-rc-2025-09-16", "run"),
        ("wasi:http/handler@0.2.0", "handle"),
        ("wasi:http/incoming-handler@0.3.0", "handle"),
        ("own:package/run@0.2.0", "run"),
    ] {
        assert_eq!(said(&exporting(name, function)), Unusable::NoEntryPoint.to_string(), "{name}");
    }
}
