//! How a command of `wasmbox` has ended, and what it has said.

use std::process::Output;

/// What a command that succeeded has printed.
#[track_caller]
pub fn good(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// What a command that did not do it has said, in which are these parts.
#[track_caller]
pub fn refused(output: &Output, parts: &[&str]) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    said.into_owned()
}
