#!/usr/bin/env bash
# formula.sh VERSION SOURCE.tar.gz: the formula for Homebrew, with the version and the checksum of the source archive.
set -euo pipefail
[ $# = 2 ] && [[ $1 =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }
sum=$(sha256sum -- "$2")
sed -e '1s/ formula.sh.*//' -e "s/VERSION/$1/" -e "s/\"SHA256\"/\"${sum%% *}\"/" "$(dirname "$0")/wasmbox.rb"
