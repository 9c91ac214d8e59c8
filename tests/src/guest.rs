//! Commands for core WebAssembly, written as text: the server compiles it as it is.

use std::fmt::Write;

/// Where [`text`] lies in memory. Below are 1 KiB for the preamble's own use and 7 KiB for the guest's.
pub const TEXT: u32 = 8192;

/// To import, for a command that lists directories.
pub const READDIR: &str =
    r#"(import "wasi_snapshot_preview1" "fd_readdir" (func $fd_readdir (param i32 i32 i32 i64 i32) (result i32)))"#;

/// What each command starts with: WASI, three pages of memory, and functions around WASI's. The second page and the third are free.
const PREAMBLE: &str = r#"
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $fd_prestat_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 3)

  ;; An errno that is not 0 becomes the exit code.
  (func $check (param $errno i32) (if (local.get $errno) (then (call $exit (local.get $errno)))))

  (func $write (param $fd i32) (param $at i32) (param $length i32)
    (loop $rest
      (i32.store (i32.const 0) (local.get $at))
      (i32.store (i32.const 4) (local.get $length))
      (call $check (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
      (local.set $at (i32.add (local.get $at) (i32.load (i32.const 8))))
      (local.set $length (i32.sub (local.get $length) (i32.load (i32.const 8))))
      (br_if $rest (local.get $length))))

  (func $print (param $at i32) (param $length i32)
    (call $write (i32.const 1) (local.get $at) (local.get $length)))

  ;; 0 at the end.
  (func $read (param $fd i32) (param $at i32) (param $most i32) (result i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $most))
    (call $check (call $fd_read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.load (i32.const 8)))

  ;; All of a descriptor to another.
  (func $copy (param $from i32) (param $to i32) (local $length i32)
    (block $end
      (loop $next
        (local.set $length (call $read (local.get $from) (i32.const 65536) (i32.const 65536)))
        (br_if $end (i32.eqz (local.get $length)))
        (call $write (local.get $to) (i32.const 65536) (local.get $length))
        (br $next))))

  ;; Each argument, ended by a NUL.
  (func $print_arguments
    (call $check (call $args_sizes_get (i32.const 16) (i32.const 20)))
    (call $check (call $args_get (i32.const 65536) (i32.const 131072)))
    (if (i32.load (i32.const 20)) (then (call $print (i32.const 131072) (i32.load (i32.const 20))))))

  ;; Each NAME=VALUE, ended by a NUL.
  (func $print_environment
    (call $check (call $environ_sizes_get (i32.const 16) (i32.const 20)))
    (call $check (call $environ_get (i32.const 65536) (i32.const 131072)))
    (if (i32.load (i32.const 20)) (then (call $print (i32.const 131072) (i32.load (i32.const 20))))))

  ;; A subscription to the monotonic clock, 48 bytes, its event behind it.
  (func $sleep (param $milliseconds i64)
    (memory.fill (i32.const 64) (i32.const 0) (i32.const 48))
    (i32.store (i32.const 80) (i32.const 1))
    (i64.store (i32.const 88) (i64.mul (local.get $milliseconds) (i64.const 1000000)))
    (call $check (call $poll_oneoff (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 24))))
"#;

/// A command whose `_start` is `body`.
pub fn command(body: &str) -> String {
    command_with("", body)
}

/// A command with `items` (globals, data, functions) of its own.
pub fn command_with(items: &str, body: &str) -> String {
    format!("(module {PREAMBLE}\n{items}\n(func (export \"_start\") {body}))\n")
}

/// A command with imports of its own, too.
pub fn command_importing(imports: &str, body: &str) -> String {
    format!("(module {imports} {PREAMBLE}\n(func (export \"_start\") {body}))\n")
}

/// Data at [`TEXT`], and the call that prints it.
pub fn text(text: impl AsRef<[u8]>) -> (String, String) {
    let text = text.as_ref();
    assert!(text.len() <= (65536 - TEXT) as usize, "longer texts reach into the second page");
    let data = text.iter().fold(String::new(), |mut data, byte| {
        let _ = write!(data, "\\{byte:02x}");
        data
    });
    let print = if text.is_empty() {
        String::new()
    } else {
        format!("(call $print (i32.const {TEXT}) (i32.const {}))", text.len())
    };
    (format!("(data (i32.const {TEXT}) \"{data}\")"), print)
}

/// A command that prints `output`, then does `body`.
pub fn printing(output: impl AsRef<[u8]>, body: &str) -> String {
    let (data, print) = text(output);
    command_with(&data, &format!("{print} {body}"))
}

/// Prints `hello` in a line.
pub fn hello() -> String {
    printing("hello\n", "")
}

/// Prints its input.
pub fn echo() -> String {
    command("(call $copy (i32.const 0) (i32.const 1))")
}

/// Prints its arguments, an empty line, then its input.
pub fn arguments() -> String {
    command_with(
        r#"(data (i32.const 1024) "\n\n")"#,
        "(call $print_arguments) (call $print (i32.const 1024) (i32.const 2)) (call $copy (i32.const 0) (i32.const 1))",
    )
}

/// Runs for ever.
pub fn busy() -> String {
    command("(loop $again (br $again))")
}

/// Counts to `number`, and ends: a fixed amount of work.
pub fn counting(number: u64) -> String {
    let body = format!(
        "(local $left i64) (local.set $left (i64.const {number}))
         (loop $again
           (local.set $left (i64.sub (local.get $left) (i64.const 1)))
           (br_if $again (i64.ne (local.get $left) (i64.const 0))))"
    );
    command(&body)
}

/// Does nothing for ever.
pub fn sleeping() -> String {
    command("(call $sleep (i64.const 86400000))")
}

/// Writes `pages` of 64 KiB; for ever if there are 0.
pub fn flood(pages: u64) -> String {
    let body = format!(
        "(local $left i64) (local.set $left (i64.const {pages}))
         (memory.fill (i32.const 65536) (i32.const 120) (i32.const 65536))
         (loop $again
           (call $print (i32.const 65536) (i32.const 65536))
           (local.set $left (i64.sub (local.get $left) (i64.const 1)))
           (br_if $again (i64.ne (local.get $left) (i64.const 0))))"
    );
    command(&body)
}

/// Calls itself without end.
pub fn recursion() -> String {
    command_with(
        "(func $deeper (param i32) (result i32)
           (i32.add (call $deeper (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))",
        "(drop (call $deeper (i32.const 0)))",
    )
}

/// Takes memory, page by page, until it gets no more; then it is `unreachable`, as an allocator's abort is.
pub fn hungry() -> String {
    command("(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable")
}

/// Grows by a MiB `steps` times, touches each page of it, sleeps for `hold` milliseconds, and prints `done`.
pub fn growing(steps: u32, hold: u64) -> String {
    let (data, print) = text("done\n");
    let body = format!(
        "(local $left i32) (local $at i32) (local $end i32)
         (local.set $left (i32.const {steps}))
         (loop $step
           (local.set $at (i32.mul (memory.grow (i32.const 16)) (i32.const 65536)))
           (if (i32.lt_s (local.get $at) (i32.const 0)) (then unreachable))
           (local.set $end (i32.add (local.get $at) (i32.const 1048576)))
           (loop $page
             (i32.store (local.get $at) (i32.const 1))
             (local.set $at (i32.add (local.get $at) (i32.const 4096)))
             (br_if $page (i32.lt_u (local.get $at) (local.get $end))))
           (local.set $left (i32.sub (local.get $left) (i32.const 1)))
           (br_if $step (local.get $left)))
         (call $sleep (i64.const {hold})) {print}"
    );
    command_with(&data, &body)
}

/// Takes `mebibytes` at once, waits for `delay` milliseconds, fills all of it in one instruction, and prints `done`.
pub fn filling(mebibytes: u32, delay: u64) -> String {
    let (data, print) = text("done\n");
    let body = format!(
        "(local $at i32)
         (local.set $at (i32.mul (memory.grow (i32.const {pages})) (i32.const 65536)))
         (if (i32.lt_s (local.get $at) (i32.const 0)) (then unreachable))
         (call $sleep (i64.const {delay}))
         (memory.fill (local.get $at) (i32.const 120) (i32.const {bytes})) {print}",
        pages = mebibytes * 16,
        bytes = mebibytes << 20
    );
    command_with(&data, &body)
}
