#!/usr/bin/env bash
# Gets containerd, runc, CNI plugins and busybox for the tests of the shim: tests/install-debian.sh calls it. The packages are taken apart into
# target/tools/containerd, not installed: nothing on the system changes, and several versions lie side by side.
#
#   target/tools/containerd/{1.6,1.7,2.1}/{containerd,ctr,containerd-shim-runc-v2}, and cni/, runc, busybox beside them
set -euo pipefail
cd "$(dirname "$0")/../.."

tools=$PWD/target/tools/containerd
# A change of this script gets everything anew.
version=$(sha256sum "$0" | cut -c 1-16)
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
mkdir -p "$new"/apt/{lists,archives}/partial
trap 'rm -rf "$new"' EXIT

# Package lists of three releases, beside those of the system, from where the system has its own.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep '/debian/\?$' | head -n 1 || true)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e $keyring ] || fail "$keyring is missing: install the package debian-archive-keyring"
for release in bookworm trixie sid; do
    echo "deb [signed-by=$keyring] ${mirror:-http://deb.debian.org/debian} $release main"
done >"$new/apt/sources.list"
: >"$new/apt/status"
cat >"$new/apt/apt.conf" <<CONF
Dir::Etc::SourceList "$new/apt/sources.list";
Dir::Etc::SourceParts "-";
Dir::State::Lists "$new/apt/lists";
Dir::State::Status "$new/apt/status";
Dir::Cache "$new/apt";
APT::Sandbox::User "root";
Acquire::Languages "none";
CONF
export APT_CONFIG=$new/apt/apt.conf

echo "Getting containerd 1.6, 1.7 and 2.1, runc, CNI plugins and busybox out of Debian's packages"
apt-get update -qq || fail "the package lists of Debian cannot be had"
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
