#!/bin/sh
# Makes target/wasm32-wasip1/release/{{name}}.wasm.
set -eu
cd "$(dirname "$0")"

if ! command -v cargo >/dev/null; then
    echo "cargo is missing, which builds Rust: install rustup from https://rustup.rs" >&2
    exit 1
fi
if [ ! -d "$(rustc --print target-libdir --target wasm32-wasip1)" ]; then
    if ! command -v rustup >/dev/null; then
        echo "Rust's target wasm32-wasip1 is missing: install it as your system installed Rust, or install rustup from https://rustup.rs" >&2
        exit 1
    fi
    rustup target add wasm32-wasip1
fi
cargo build --release --target wasm32-wasip1 --target-dir target
