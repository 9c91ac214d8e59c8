#!/bin/sh
# Makes $1 with Go's own compiler.
set -eu
cd "$(dirname "$0")"
GOOS=wasip1 GOARCH=wasm go build -trimpath -ldflags='-s -w' -o "$1" .
echo "Go net/http/cgi $(go env GOVERSION | sed s/go//)"
