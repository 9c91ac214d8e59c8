#!/bin/sh
# Gets $1: esbuild, of npm's package @esbuild/wasi-preview1.
set -eu
mkdir -p "$2"
cd "$2"
npm install --silent --no-fund --no-audit --ignore-scripts --force @esbuild/wasi-preview1@0.27.2 >&2
cp node_modules/@esbuild/wasi-preview1/esbuild.wasm "$1"
echo "esbuild 0.27.2"
