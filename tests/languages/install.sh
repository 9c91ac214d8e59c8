#!/usr/bin/env bash
# Gets the compilers of the languages that `make languages` tests, as far as their build does not get them itself: clang and libc++ for WASI, out of Debian's
# packages into target/tools/wasi, without installing them. Go, Node.js with npm, and Python with venv must be there. The second time there is
# nothing to do.
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() {
    echo "tests/languages: $*" >&2
    exit 1
}
for command in go node npm python3; do
    command -v $command >/dev/null || fail "$command is missing: install Go (https://go.dev/dl), Node.js 20 or later (https://nodejs.org), Python 3.10 or later"
done

wasi=$PWD/target/tools/wasi
version=$(sha256sum "$0" | cut -c 1-16)
works() {
    echo 'int main(void) { return 0; }' | "$wasi/clang" --target=wasm32-wasi -x c - -o "$wasi/try.wasm"
}
if [ "$(cat "$wasi/version" 2>/dev/null)" = "$version" ] && works 2>/dev/null; then
    exit
fi
for command in apt-get dpkg-deb; do
    command -v $command >/dev/null || fail "$command is missing: clang for WASI is taken from Debian's packages"
done

rm -rf "$wasi"
mkdir -p "$wasi/packages"
# A fresh container has no package lists yet; only root can get them.
apt-cache show wasi-libc >/dev/null 2>&1 || [ "$(id -u)" != 0 ] || apt-get update -qq
wanted=(clang lld wasi-libc libclang-rt-dev-wasm32)
# What they need that the system does not have; what it has of them is used from there, but the programs themselves.
missing=$(apt-get install --simulate --no-install-recommends -qq "${wanted[@]}" | sed -n 's/^Inst \([^ ]*\).*/\1/p') ||
    fail "apt cannot tell what ${wanted[*]} depend on"
clang=$(apt-cache depends clang | sed -n 's/^ *Depends: \(clang-[0-9]*\)$/\1/p' | head -n 1)
number=${clang#clang-}
[ -n "$number" ] || fail "apt does not know the package clang: run apt-get update; the packages are Debian's"
echo "Getting clang for WASI out of Debian's packages"
# Unsandboxed, since apt's own user may not write here.
# shellcheck disable=SC2046,SC2086
(cd "$wasi/packages" && apt-get download -qq -o APT::Sandbox::User=root \
    $(printf '%s\n' "clang-$number" "libclang-common-$number-dev" "lld-$number" wasi-libc "libclang-rt-$number-dev-wasm32" \
        "libc++-$number-dev-wasm32" "libc++abi-$number-dev-wasm32" $missing | sort -u)) ||
    fail "a package cannot be had"
for package in "$wasi"/packages/*.deb; do
    dpkg-deb -x "$package" "$wasi"
done
rm -r "$wasi/packages"

# As the packages would be installed: the system's root is this directory.
cat >"$wasi/clang" <<EOF
#!/bin/sh
LD_LIBRARY_PATH=$wasi/usr/lib/x86_64-linux-gnu:$wasi/usr/lib/llvm-$number/lib PATH=$wasi/usr/bin:$wasi/usr/lib/llvm-$number/bin:\$PATH \\
    exec $wasi/usr/lib/llvm-$number/bin/clang --sysroot=$wasi/usr "\$@"
EOF
chmod +x "$wasi/clang"
works || fail "clang of the package clang-$number does not build for WASI"
echo "$version" >"$wasi/version"
