#!/usr/bin/env bash
# Gets containerd, runc, CNI plugins and busybox for the tests of the shim: tests/install-debian.sh calls it. The packages are taken apart into
# target/tools/containerd, not installed: nothing on the system changes, and several versions lie side by side.
#
#   target/tools/containerd/{1.6,1.7,2.1}/{containerd,ctr,containerd-shim-runc-v2}, and cni/, runc, busybox beside them
set -euo pipefail
cd "$(dirname "$0")/../.."

tools=$PWD/target/tools/containerd
# A change of the scripts gets everything anew.
version=$(sha256sum "$0" tests/debian.sh | sha256sum | cut -c 1-16)
[ "$(cat "$tools/version" 2>/dev/null)" != "$version" ] || exit 0

fail() {
    echo "tests/containerd: $*" >&2
    exit 1
}
for command in apt-get dpkg-deb; do
    command -v $command >/dev/null || fail "$command is missing: what the tests of the shim need is taken from Debian's packages"
done

new=$PWD/target/tools/containerd.new
rm -rf "$new"
trap 'rm -rf "$new"' EXIT

echo "Getting containerd 1.6, 1.7 and 2.1, runc, CNI plugins and busybox out of Debian's packages"
# shellcheck source=tests/debian.sh
. tests/debian.sh
debian_lists "$new/apt" bookworm trixie sid
# unpack PACKAGE/RELEASE: into $new/unpacked
unpack() {
    rm -rf "$new/unpacked" "$new/packages"
    mkdir "$new/packages"
    (cd "$new/packages" && apt-get download -qq "$1" && dpkg-deb -x ./*.deb "$new/unpacked") || fail "the package $1 cannot be had"
}
for release in bookworm:1.6 trixie:1.7 sid:2.1; do
    unpack "containerd/${release%:*}"
    directory=$new/${release#*:}
    mkdir "$directory"
    mv "$new"/unpacked/usr/bin/{containerd,ctr,containerd-shim-runc-v2} "$directory"
    said=$("$directory/containerd" --version) || fail "containerd of ${release%:*} does not run here"
    [[ $said == *" ${release#*:}."* ]] || fail "${release%:*} has $said, not ${release#*:}: name its version in this script and in the tests"
done
unpack runc/bookworm
mv "$new/unpacked/usr/sbin/runc" "$new"
"$new/runc" --version >/dev/null || fail "runc does not run: it needs the package libseccomp2"
unpack containernetworking-plugins/bookworm
mv "$new/unpacked/usr/lib/cni" "$new"
unpack busybox-static/bookworm
mv "$(find "$new/unpacked" -name busybox -type f -perm -u+x | head -n 1)" "$new"

rm -rf "$new"/{apt,packages,unpacked} "$tools"
echo "$version" >"$new/version"
mv "$new" "$tools"
trap - EXIT
