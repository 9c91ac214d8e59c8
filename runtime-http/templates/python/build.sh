#!/bin/sh
# Makes target/{{name}}.wasm: the sources and a Python interpreter, as one component.
set -eu
cd "$(dirname "$0")"

if ! python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "Python 3.10 or later with venv is missing. On Debian and Ubuntu: apt install python3-venv; elsewhere: https://www.python.org" >&2
    exit 1
fi
mkdir -p target
# What was asked for is not there yet, or something else.
if ! cmp -s requirements.txt target/installed; then
    python3 -m venv --clear .venv
    .venv/bin/pip install --quiet --disable-pip-version-check --requirement requirements.txt
    cp requirements.txt target/installed
fi
# It is in Rust and C, whose backtraces would hide where the error in the sources is.
unset RUST_BACKTRACE RUST_LIB_BACKTRACE
# As after `. .venv/bin/activate`: what requirements.txt names is found there.
export VIRTUAL_ENV="$PWD/.venv" PATH="$PWD/.venv/bin:$PATH"
componentize-py --quiet --wit-path wit --world function componentize app --output 'target/{{name}}.wasm'
