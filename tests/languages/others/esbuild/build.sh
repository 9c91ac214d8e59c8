#!/bin/sh
# Gets $1: esbuild, of npm's package @esbuild/wasi-preview1.
set -eu
here=$(dirname "$0")
"$here/../npm.sh" "$here" "$2"
cp "$2/node_modules/@esbuild/wasi-preview1/esbuild.wasm" "$1"
echo "esbuild $(sed -n 's/.*wasi-preview1": "\(.*\)".*/\1/p' "$here/package.json")"
