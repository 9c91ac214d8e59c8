#!/bin/sh
# Makes target/{{name}}.wasm. WASI_CC names a compiler, that of the WASI SDK for instance.
set -eu
cd "$(dirname "$0")"

WASI_CC=${WASI_CC:-clang}
mkdir -p target
if ! said=$(echo 'int main(void) { return 0; }' | "$WASI_CC" --target=wasm32-wasi -x c - -o target/.try.wasm 2>&1); then
    echo "$said" >&2
    echo "$WASI_CC cannot build for WASI. On Debian and Ubuntu: apt install clang lld wasi-libc libclang-rt-dev-wasm32" >&2
    echo "Elsewhere: get the WASI SDK, https://github.com/WebAssembly/wasi-sdk, and set WASI_CC to its bin/clang" >&2
    exit 1
fi
rm -f target/.try.wasm
"$WASI_CC" --target=wasm32-wasi -O2 -Wall -Wextra -Wl,--strip-all -o 'target/{{name}}.wasm' src/*.c
