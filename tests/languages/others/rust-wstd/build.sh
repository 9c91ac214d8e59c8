#!/bin/sh
# Makes $1 with Cargo, in the directory $2.
set -eu
cd "$(dirname "$0")"
cargo build --quiet --locked --release --target wasm32-wasip2 --target-dir "$2"
cp "$2/wasm32-wasip2/release/function.wasm" "$1"
sed -n '/^name = "wstd"$/{n;s/version = "\(.*\)"/wstd \1/p}' Cargo.lock
