;; Sleeps 700 ms, then writes one line.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  ;; 0: an iovec, pointer 16 and length 5.  16: the text.
  (data (i32.const 0) "\10\00\00\00\05\00\00\00")
  (data (i32.const 16) "slow\n")
  (func (export "_start")
    ;; 64: a subscription to the monotonic clock (its id at 80), relative, in nanoseconds (at 88).
    (i32.store (i32.const 80) (i32.const 1))
    (i64.store (i32.const 88) (i64.const 700000000))
    (drop (call $poll_oneoff (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 8)))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
