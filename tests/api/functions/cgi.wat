;; Writes no CGI header block, though its settings promise one.
(module (memory (export "memory") 1) (func (export "_start")))
