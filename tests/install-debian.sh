#!/usr/bin/env bash
# Gets what the tests need beside the Rust toolchain: `make test` calls it. Without root, and without changing the system where it can.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=$PWD/target/tools
mkdir -p "$tools/bin"

# For the guests; the toolchain file names them too, but rustup may have been told not to heed it.
if command -v rustup >/dev/null; then
    rustup target add wasm32-wasip1 wasm32-wasip2
fi

# promtool checks the metrics. It is taken out of its package, since installing that would start a Prometheus server.
if ! command -v promtool >/dev/null && [ ! -x "$tools/bin/promtool" ]; then
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
    install -m 755 "$packages/usr/bin/promtool" "$tools/bin/promtool"
fi

# cgroup v2 is tested in a virtual machine.
tests/vm/install-debian.sh

# And a node with systemd in another.
tests/vm/install-systemd.sh

# The shim is tested with several versions of containerd.
tests/containerd/install-debian.sh
