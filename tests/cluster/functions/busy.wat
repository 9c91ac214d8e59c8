;; Counts for some tens of milliseconds, then writes one line.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\05\00\00\00")
  (data (i32.const 16) "busy\n")
  (global $sum (mut i64) (i64.const 0))
  (func (export "_start")
    (local $i i64)
    (loop $next
      (global.set $sum (i64.add (i64.mul (global.get $sum) (i64.const 3)) (local.get $i)))
      (local.set $i (i64.add (local.get $i) (i64.const 1)))
      (br_if $next (i64.lt_u (local.get $i) (i64.const 50000000))))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
