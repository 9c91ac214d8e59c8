#!/usr/bin/env bash
# Makes three images for `ctr run`, offline: `make images` calls it.
#
#   target/images/box.tar       a box with the examples' functions
#   target/images/hello.tar     one module, run once
#   target/images/ordinary.tar  a native program, as in any image
set -euo pipefail
cd "$(dirname "$0")/.."

images=$PWD/target/images
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$images" "$work"/{box/functions,hello,ordinary}

cp examples/functions/* "$work/box/functions"
# The program itself is the node's: the image needs none.
examples/image.sh --entrypoint wasmbox --entrypoint serve --entrypoint --functions-dir=/functions \
    docker.io/library/box:latest "$work/box" "$images/box.tar"

cp examples/functions/rust-hello.wasm "$work/hello/hello.wasm"
examples/image.sh --entrypoint /hello.wasm docker.io/library/hello:latest "$work/hello" "$images/hello.tar"

printf '#include <stdio.h>\nint main(void) { puts("A native program."); return 0; }\n' |
    cc -static -Os -s -x c -o "$work/ordinary/program" -
examples/image.sh --entrypoint /program docker.io/library/ordinary:latest "$work/ordinary" "$images/ordinary.tar"
