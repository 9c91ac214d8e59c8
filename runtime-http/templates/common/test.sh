#!/bin/sh
# Builds the function, calls it once in a box of its own, and compares the answer. WASMBOX names the program, if it is not in the path.
set -eu
cd "$(dirname "$0")"
wasmbox=${WASMBOX:-wasmbox}

"$wasmbox" build
answer=$("$wasmbox" invoke {{name}} --file functions --arg Ada --data 'some text')
expected='{{answer}}'
if [ "$answer" != "$expected" ]; then
    printf 'expected: %s\nanswered: %s\n' "$expected" "$answer" >&2
    exit 1
fi
echo "{{name}} answers as expected"
