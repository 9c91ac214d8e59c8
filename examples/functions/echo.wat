;; Copies stdin (the request body) to stdout (the response body) in pieces of up to 64 KiB, so a body
;; of any length passes through one page of buffer.
;; WAT text needs no build: the server compiles this file as it is.
;;
;;     curl localhost:8095/echo --data-binary @echo.wat
(module
  (import "wasi_snapshot_preview1" "fd_read"
    (func $fd_read (param $fd i32) (param $iovs i32) (param $iovs_len i32) (param $read i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param $fd i32) (param $iovs i32) (param $iovs_len i32) (param $written i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param $code i32)))

  ;; Page 0: an iovec at 0 (pointer, length), the byte count at 8.  Page 1: the buffer.
  (memory (export "memory") 2)

  (func (export "_start")
    (local $from i32)  ;; the bytes still to be written start here
    (local $left i32)  ;; and are this many
    (block $end
      (loop $next
        (i32.store (i32.const 0) (i32.const 65536))
        (i32.store (i32.const 4) (i32.const 65536))
        (call $check (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (local.set $from (i32.const 65536))
        (local.set $left (i32.load (i32.const 8)))
        (br_if $end (i32.eqz (local.get $left)))  ;; 0 bytes read: the end of the body

        ;; fd_write may take only a part; go on until the piece is gone.
        (loop $rest
          (i32.store (i32.const 0) (local.get $from))
          (i32.store (i32.const 4) (local.get $left))
          (call $check (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
          (local.set $from (i32.add (local.get $from) (i32.load (i32.const 8))))
          (local.set $left (i32.sub (local.get $left) (i32.load (i32.const 8))))
          (br_if $rest (local.get $left)))
        (br $next))))

  ;; A WASI error ends the function with exit code 1.
  (func $check (param $errno i32)
    (if (local.get $errno) (then (call $proc_exit (i32.const 1))))))
