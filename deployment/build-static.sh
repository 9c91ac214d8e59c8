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

# `rustc`, not RUSTFLAGS: the dependencies are then those of any other build. The C library's features that want it dynamic (name services)
# are not used.
for binary in wasmbox containerd-shim-wasmbox-v1 wasmbox-installer; do
    "${CARGO:-cargo}" rustc --locked --profile "$profile" "${cross[@]}" --package $binary --bin $binary -- \
        -C target-feature=+crt-static -C strip=symbols
    # Not over a binary that runs.
    install -m 755 "$output/$binary" "$directory/$binary.new"
    mv "$directory/$binary.new" "$directory/$binary"
done
