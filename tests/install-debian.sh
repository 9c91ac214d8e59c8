#!/usr/bin/env bash
# Gets what the tests need beside the Rust toolchain: `make test` calls it. Without root, and without changing the system where it can.
set -euo pipefail
cd "$(dirname "$0")/.."

# For the guests; the toolchain file names them too, but rustup may have been told not to heed it.
if command -v rustup >/dev/null; then
    rustup target add wasm32-wasip1 wasm32-wasip2
fi

# promtool checks the metrics.
tests/promtool-debian.sh

# What functions keep is tested with a real Redis and a real Valkey, too.
tests/redis-debian.sh

# cgroup v2 is tested in a virtual machine.
tests/vm/install-debian.sh

# And a node with systemd in another.
tests/vm/install-systemd.sh

# The shim is tested with several versions of containerd.
tests/containerd/install-debian.sh
