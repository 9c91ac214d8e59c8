#!/usr/bin/env bash
# build-static.sh DIRECTORY [amd64|arm64]: the three binaries, which need no library. PROFILE=release is built sooner and runs slower.
# For the other architecture than this machine's: rustup, and a C cross-compiler (Debian: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross;
# or gcc-x86-64-linux-gnu, libc6-dev-amd64-cross).
set -euo pipefail
[ $# = 1 ] || [ $# = 2 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
mkdir -p "$1"
directory=$(realpath "$1")
case ${2:-$(uname -m)} in
    amd64 | x86_64) machine=x86_64 ;;
    arm64 | aarch64) machine=aarch64 ;;
    *) echo "architecture ${2-}: expected amd64 or arm64" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/.."

profile=${PROFILE:-dist}
output=target/$profile
cross=()
if [ "$(uname -m)" != $machine ]; then
    target=$machine-unknown-linux-gnu
    rustup target add $target
    variable=${target//-/_}
    export "CC_$variable=$machine-linux-gnu-gcc"
    export "CARGO_TARGET_${variable^^}_LINKER=$machine-linux-gnu-gcc"
    cross=(--target $target)
    output=target/$target/$profile
fi

binaries=(wasmbox containerd-shim-wasmbox-v1 wasmbox-installer)
# The C library's features that want it dynamic (name services) are not used.
export RUSTC_WORKSPACE_WRAPPER=$PWD/deployment/rustc-static
build() { "${CARGO:-cargo}" build --locked --profile "$profile" "${cross[@]}" "$@"; }
if [ "$profile" = release ]; then
    # With the features that the tests' build has, so that no dependency is built twice.
    build --workspace "${binaries[@]/#/--bin=}"
else
    # Each with what it needs alone.
    for binary in "${binaries[@]}"; do build --package "$binary" --bin "$binary"; done
fi
for binary in "${binaries[@]}"; do
    # Not over a binary that runs.
    install -m 755 "$output/$binary" "$directory/$binary.new"
    mv "$directory/$binary.new" "$directory/$binary"
done
