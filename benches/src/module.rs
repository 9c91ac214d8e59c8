//! The core modules that are served, written as text and assembled here.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};

/// Functions of [`large`]: with about 260 bytes each they make 1 MB.
const LARGE_FUNCTIONS: u32 = 3_800;

/// Steps of arithmetic in each function of [`large`].
const LARGE_STEPS: u32 = 20;

/// Bytes of static data in [`large`].
const LARGE_DATA: usize = 64 * 1024;

/// What both modules do: a WASI command that writes `hello` to stdout. `{pages}` and `{more}` are filled in.
const HELLO: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") {pages})
  (data (i32.const 0) "\10\00\00\00\06\00\00\00")
  (data (i32.const 16) "hello\n")
  {more}
  (func (export "_start")
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
"#;

/// A subscription to the monotonic clock: 48 bytes, its event behind it.
const NAP: &str = r#"(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const {nanoseconds}))
    (drop (call $poll_oneoff (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 96)))))
"#;

/// The trivial WASI command.
///
/// # Errors
///
/// Never, unless the text is wrong.
pub fn hello() -> Result<Vec<u8>> {
    assemble(&HELLO.replace("{pages}", "1").replace("{more}", ""))
}

/// The trivial command with a constant of its own, so that its code is shared with no other.
///
/// # Errors
///
/// Never, unless the text is wrong.
pub fn small(index: u32) -> Result<Vec<u8>> {
    let more = format!("(func (export \"own\") (result i32) (i32.const {index}))");
    assemble(&HELLO.replace("{pages}", "1").replace("{more}", &more))
}

/// A WASI command that sleeps for `time`.
///
/// # Errors
///
/// Never, unless the text is wrong.
pub fn nap(time: Duration) -> Result<Vec<u8>> {
    assemble(&NAP.replace("{nanoseconds}", &time.as_nanos().to_string()))
}

/// The same command with 1 MB of code and data around it, as a program with a language runtime has: thousands of
/// functions in a table, and static data.
///
/// # Errors
///
/// Never, unless the text is wrong.
pub fn large() -> Result<Vec<u8>> {
    let mut more = String::new();
    let mut table = String::new();
    // Any constants do, if only they differ: equal functions could be folded.
    let mut constant: u32 = 1;
    for index in 0..LARGE_FUNCTIONS {
        write!(more, "(func $f{index} (param i32) (result i32) local.get 0").expect("a String takes all");
        for _ in 0..LARGE_STEPS {
            constant = constant.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let turn = constant % 31 + 1;
            write!(more, " i32.const {constant} i32.xor i32.const {turn} i32.rotl local.get 0 i32.add")
                .expect("a String takes all");
        }
        more.push_str(")\n  ");
        write!(table, " $f{index}").expect("a String takes all");
    }
    let data = "static data ".repeat(LARGE_DATA / 12);
    write!(more, "(table funcref (elem{table}))\n  (data (i32.const 65536) \"{data}\")").expect("a String takes all");
    assemble(&HELLO.replace("{pages}", "2").replace("{more}", &more))
}

fn assemble(text: &str) -> Result<Vec<u8>> {
    wat::parse_str(text).context("cannot assemble a module")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_large_module_has_a_megabyte() {
        let size = large().unwrap().len();
        assert!((1_000_000..1_200_000).contains(&size), "{size}");
    }

    #[test]
    fn the_small_module_is_small() {
        assert!(hello().unwrap().len() < 300);
    }
}
