#!/bin/sh
# Gets what package.json and package-lock.json of the directory $1 pin from npm, by version and checksum, into the directory $2.
set -eu
cp "$1/package.json" "$1/package-lock.json" "$2"
cd "$2"
# Forced, since packages for WASI are of no platform that npm knows.
npm ci --silent --no-fund --no-audit --ignore-scripts --force >&2
