#!/bin/sh
# Makes target/{{name}}.wasm.
set -eu
cd "$(dirname "$0")"

if ! { command -v npm && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)'; } >/dev/null 2>&1; then
    echo "Node.js 20 or later with npm is missing: install it from https://nodejs.org" >&2
    exit 1
fi
# What was asked for is not there yet, or something else.
if ! cat package.json package-lock.json | cmp -s - target/installed; then
    npm install --no-fund --no-audit
    mkdir -p target
    cat package.json package-lock.json >target/installed
fi
npm run --silent build
