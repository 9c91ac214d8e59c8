#!/bin/sh
# Makes $3 with Cargo, of the member $1 of this workspace, whose crate $2 gives it its name. $4 keeps what was built.
set -eu
cd "$(dirname "$0")"
target=$(dirname "$4")/rust
cargo build --quiet --locked --release --target wasm32-wasip2 --target-dir "$target" --package "$1"
cp "$target/wasm32-wasip2/release/$(echo "$1" | tr - _).wasm" "$3"
cargo tree --locked --package "$1" --target wasm32-wasip2 --depth 1 --prefix none | sed -n "s/^\($2\) v\([0-9.]*\).*/\1 \2/p"
