#!/bin/sh
# Makes $1 with the compiler of PyPI's package ziglang, in the directory $2.
set -eu
cd "$(dirname "$0")"
../pypi.sh requirements.txt "$2/venv"
export ZIG_LOCAL_CACHE_DIR="$2/cache" ZIG_GLOBAL_CACHE_DIR="$2/cache"
python=$2/venv/bin/python
"$python" -m ziglang build-exe main.zig -target wasm32-wasi -O ReleaseSmall -femit-bin="$1"
echo "Zig $("$python" -m ziglang version)"
