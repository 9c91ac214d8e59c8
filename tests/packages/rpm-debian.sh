#!/usr/bin/env bash
# Gets rpm, if there is none, to read packages: into target/tools/rpm, out of Debian's packages, since a Debian system has no use for it.
set -euo pipefail
cd "$(dirname "$0")/../.."

tools=$PWD/target/tools/rpm
if command -v rpm >/dev/null || [ -x "$tools/bin/rpm" ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "rpm is missing: install it" >&2
    exit 1
fi
echo "Getting rpm out of Debian's package rpm"
packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
# A fresh container has no package lists yet; only root can get them.
apt-cache show rpm >/dev/null 2>&1 || [ "$(id -u)" != 0 ] || apt-get update -qq
# Its libraries, but for those that each system has.
names=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances rpm |
    grep -xE 'rpm|rpm-common|librpm[a-z0-9t]*|liblua[0-9.-]+|libpopt0' | sort -u)
# shellcheck disable=SC2086
(cd "$packages" && apt-get download -qq -o APT::Sandbox::User=root $names && for one in *.deb; do dpkg-deb -x "$one" root; done)
rm -rf "$tools"
mkdir -p "$tools/bin"
mv "$packages/root/usr" "$tools/usr"
cat >"$tools/bin/rpm" <<SH
#!/bin/sh
LD_LIBRARY_PATH=$tools/usr/lib/$(uname -m)-linux-gnu RPM_CONFIGDIR=$tools/usr/lib/rpm exec $tools/usr/bin/rpm "\$@"
SH
chmod +x "$tools/bin/rpm"
"$tools/bin/rpm" --version
