#!/bin/sh
# Makes $1 with clang for WASI and libc++, of Debian's packages.
set -eu
cd "$(dirname "$0")"
# Debian's libc++ for WASI has no exceptions.
"${WASI_CC:-clang}" --driver-mode=g++ --target=wasm32-wasi -O2 -fno-exceptions -Wl,--strip-all main.cc -o "$1"
echo "clang++ $("${WASI_CC:-clang}" --version | sed -n '1s/.*version \([0-9.]*\).*/\1/p')"
