#!/usr/bin/env bash
# Gets the files of a Debian with systemd and containerd, which tests/vm/run.sh --systemd boots: tests/install-debian.sh calls it. They are
# installed into target/tools/systemd/root by mmdebstrap, itself taken out of its package; nothing on the system changes. The second time there is
# nothing to do.
set -euo pipefail
cd "$(dirname "$0")/../.."

tools=$PWD/target/tools/systemd
vm=$PWD/target/tools/vm
# A change of this script gets everything anew; so does another kernel.
kernel=$(basename "$(find "$vm/lib/modules" -mindepth 1 -maxdepth 1)")
version="$(sha256sum "$0" | cut -c 1-16) $kernel"
[ "$(cat "$tools/version" 2>/dev/null)" != "$version" ] || exit 0

fail() {
    echo "tests/vm: $*" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || fail "a Debian's files can be installed by root only, who also runs the tests that need them"
for command in apt-get dpkg-deb perl; do
    command -v $command >/dev/null || fail "$command is missing: what the virtual machine needs is taken from Debian's packages"
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e $keyring ] || fail "$keyring is missing: install the package debian-archive-keyring"

new=$PWD/target/tools/systemd.new
rm -rf "$new"
mkdir -p "$new/mmdebstrap"
trap 'rm -rf "$new"' EXIT
apt-cache show mmdebstrap >/dev/null 2>&1 || apt-get update -qq
(cd "$new/mmdebstrap" && apt-get download -qq -o APT::Sandbox::User=root mmdebstrap && dpkg-deb -x ./*.deb .) ||
    fail "the package mmdebstrap cannot be had"
mirror=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep '/debian/\?$' | head -n 1 || true)

echo "Installing Debian 13 with systemd and containerd for the virtual machine"
packages=systemd,systemd-sysv,dbus,kmod,e2fsprogs,containerd,runc
perl "$new/mmdebstrap/usr/bin/mmdebstrap" --quiet --mode=root --variant=minbase --include=$packages trixie "$new/root" \
    "deb [signed-by=$keyring] ${mirror:-http://deb.debian.org/debian} trixie main" >"$new/log" 2>&1 || {
    cat "$new/log" >&2
    fail "mmdebstrap failed; above is what it says"
}
rm -rf "$new/mmdebstrap" "$new/log" "$new/root/usr/share/"{doc,man,locale} "$new/root/var/lib/apt/lists" "$new/root/var/cache/apt"

# The kernel's modules, which programs load by themselves.
mkdir -p "$new/root/usr/lib/modules" "$new/root/etc/containerd"
cp -r "$vm/lib/modules/$kernel" "$new/root/usr/lib/modules"
chroot "$new/root" depmod "$kernel"
# No first boot, and nothing that a test does not need.
echo 6b1d0b5a2f0e4d0f9f3c1e7a5d8c9b02 >"$new/root/etc/machine-id"
: >"$new/root/etc/fstab"
masked="systemd-journal-flush.service systemd-update-utmp.service systemd-random-seed.service systemd-user-sessions.service systemd-pstore.service \
    systemd-firstboot.service ldconfig.service getty@tty1.service modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service \
    modprobe@configfs.service dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
    sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    systemd-tmpfiles-clean.timer e2scrub_reap.service e2scrub_all.timer fstrim.timer"
for unit in $masked; do
    ln -sf /dev/null "$new/root/etc/systemd/system/$unit"
done
echo wasmbox-node >"$new/root/etc/hostname"
# Pods on the node's network get these.
echo "127.0.0.1 localhost" >"$new/root/etc/hosts"
: >"$new/root/etc/resolv.conf"

echo "$version" >"$new/version"
rm -rf "$tools"
mv "$new" "$tools"
trap - EXIT
