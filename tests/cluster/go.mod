module wasmbox.dev/tests/cluster

go 1.26
