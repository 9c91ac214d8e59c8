#!/usr/bin/env bash
# Gets what tests/vm/run.sh boots: qemu with virtiofsd, a kernel, busybox. tests/install-debian.sh calls it. The packages are taken apart into
# target/tools/vm, not installed: no root is needed, no boot loader is touched, nothing on the system changes. The second time there is nothing to do.
set -euo pipefail
cd "$(dirname "$0")/../.."

vm=$PWD/target/tools/vm
# A change of this script gets everything anew; so does a system whose libraries no longer fit.
version=$(sha256sum "$0" | cut -c 1-16)
libraries=$vm/usr/lib/x86_64-linux-gnu:$vm/lib/x86_64-linux-gnu
if [ "$(cat "$vm/version" 2>/dev/null)" = "$version" ] && LD_LIBRARY_PATH=$libraries "$vm/usr/bin/qemu-system-x86_64" --version >/dev/null; then
    exit
fi

fail() {
    echo "tests/vm: $*" >&2
    exit 1
}
[ "$(uname -m)" = x86_64 ] || fail "the virtual machine is an x86_64 one, this is $(uname -m)"
for command in apt-get dpkg-deb; do
    command -v $command >/dev/null || fail "$command is missing: what the virtual machine needs is taken from Debian's packages"
done

new=$PWD/target/tools/vm.new
rm -rf "$new"
mkdir -p "$new/packages"
trap 'rm -rf "$new"' EXIT

# A fresh container has no package lists yet; only root can get them.
apt-cache show qemu-system-x86 >/dev/null 2>&1 || [ "$(id -u)" != 0 ] || apt-get update -qq
# The package linux-image-cloud-amd64 is empty and depends on the newest kernel's.
kernel=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p' | head -n 1)
[ -n "$kernel" ] || fail "apt does not know the package linux-image-cloud-amd64: run apt-get update; the packages are Debian's"
# qemu, with those of its libraries that the system does not have. Newer Debians have virtiofsd in a package of its own.
qemu=(qemu-system-x86 qemu-system-common qemu-system-data seabios)
! apt-cache show virtiofsd >/dev/null 2>&1 || qemu+=(virtiofsd)
missing=$(apt-get install --simulate --no-install-recommends -qq "${qemu[@]}" | sed -n 's/^Inst \([^ ]*\).*/\1/p') ||
    fail "apt cannot tell what ${qemu[*]} depend on"

echo "Getting a virtual machine out of Debian's packages: $kernel, busybox-static, ${qemu[*]}, and what these need"
# Unsandboxed, since apt's own user may not write here.
# shellcheck disable=SC2046,SC2086
(cd "$new/packages" && apt-get download -qq -o APT::Sandbox::User=root \
    $(printf '%s\n' "$kernel" busybox-static "${qemu[@]}" $missing | sort -u)) || fail "a package cannot be had"
for package in "$new"/packages/*.deb; do
    dpkg-deb -x "$package" "$new"
done
rm -r "$new/packages" "$new/usr/share/doc"

mv "$new"/boot/vmlinuz-* "$new/kernel"
mv "$(find "$new" -path '*/bin/busybox' -type f)" "$new/busybox"
mkdir "$new/modules"
# What the kernel needs to find its root; tests/vm/init loads them. What is not there is built in.
for module in virtio_ring virtio virtio_pci_{modern,legacy}_dev virtio_pci virtio_console virtio_blk fuse virtiofs overlay; do
    find "$new" -path "*/lib/modules/*/$module.ko*" -exec cp {} "$new/modules" \;
done
for compressed in "$new"/modules/*.xz; do
    [ ! -e "$compressed" ] || xz -d "$compressed"
done
echo "$version" >"$new/version"

rm -rf "$vm"
mv "$new" "$vm"
trap - EXIT
said=$(LD_LIBRARY_PATH=$libraries "$vm/usr/bin/qemu-system-x86_64" --version 2>&1) || fail "qemu of the package qemu-system-x86 does not run: $said"
