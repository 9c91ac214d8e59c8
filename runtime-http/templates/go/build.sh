#!/bin/sh
# Makes target/{{name}}.wasm.
set -eu
cd "$(dirname "$0")"

if ! go tool dist list 2>/dev/null | grep -qx wasip1/wasm; then
    echo "Go 1.21 or later is missing: install it from https://go.dev/dl" >&2
    exit 1
fi
GOOS=wasip1 GOARCH=wasm go build -trimpath -ldflags='-s -w' -o 'target/{{name}}.wasm' .
