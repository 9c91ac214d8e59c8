#!/bin/sh
# Gets what the requirements $1 pin from PyPI, by version and checksum, into the virtual environment $2. The second time there is nothing to do.
set -eu
if ! cmp -s "$1" "$2/requirements.txt"; then
    rm -rf "$2"
    python3 -m venv "$2"
    "$2/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement "$1" >&2
    cp "$1" "$2/requirements.txt"
fi
