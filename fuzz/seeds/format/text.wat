;; The smallest function: writes one line to stdout, which is the response body.
;; WAT text needs no build: the server compiles this file as it is.
;;
;;     curl localhost:8095/hello
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param $fd i32) (param $iovs i32) (param $iovs_len i32) (param $written i32) (result i32)))

  (memory (export "memory") 1)

  ;; 0: an iovec, pointer 16 and length 6 (little endian).  8: bytes written.  16: the text.
  (data (i32.const 0) "\10\00\00\00\06\00\00\00")
  (data (i32.const 16) "hello\n")

  (func (export "_start")
    (drop (call $fd_write
      (i32.const 1)     ;; stdout
      (i32.const 0)     ;; the iovec
      (i32.const 1)     ;; how many
      (i32.const 8))))) ;; where to put the bytes written
