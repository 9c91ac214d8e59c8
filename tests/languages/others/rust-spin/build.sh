#!/bin/sh
# Makes $1 with Cargo, and keeps what was built beside the directory $2.
exec "$(dirname "$0")/../rust.sh" rust-spin spin-sdk "$1" "$2"
