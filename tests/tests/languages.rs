//! The templates of `wasmbox new` with their compilers, and the tutorials on them: `make languages` gets these, and runs it. Rust and WAT are in new.rs.

use wasmbox_tests::{project::Project, tutorial};

/// Its own test, twice: the second time what was installed is there already.
fn passes_its_test(language: &str) {
    let project = Project::new("hello", language);
    for _ in 0..2 {
        let tested = project.test();
        assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
        assert!(String::from_utf8_lossy(&tested.stdout).contains("hello answers as expected"), "{tested:?}");
    }
}

#[test]
fn go() {
    passes_its_test("go");
    tutorial::follow("go");
}

#[test]
fn c() {
    passes_its_test("c");
    tutorial::follow("c");
}

#[test]
fn assemblyscript() {
    passes_its_test("assemblyscript");
    tutorial::follow("assemblyscript");
}

#[test]
fn js() {
    passes_its_test("js");
    tutorial::follow("js");
}

#[test]
fn python() {
    passes_its_test("python");
    tutorial::follow("python");
}
