#!/usr/bin/env bash
# Gets promtool, if there is none: into target/tools/bin, out of Debian's package `prometheus`, since installing that would start a server.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=$PWD/target/tools
if command -v promtool >/dev/null || [ -x "$tools/bin/promtool" ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "promtool is missing. It is part of Prometheus: https://prometheus.io/download" >&2
    exit 1
fi
echo "Getting promtool out of Debian's package prometheus"
packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
# A fresh container has no package lists yet; only root can get them.
apt-cache show prometheus >/dev/null 2>&1 || [ "$(id -u)" != 0 ] || apt-get update -qq
(cd "$packages" && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb .)
install -D -m 755 "$packages/usr/bin/promtool" "$tools/bin/promtool"
