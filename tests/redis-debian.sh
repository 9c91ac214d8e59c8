#!/usr/bin/env bash
# Gets redis-server and valkey-server, as far as they are not there: into target/tools/redis and target/tools/valkey, out of Debian's packages,
# since installing them would start servers. Debian 12 has Valkey among its backports.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=$PWD/target/tools
has() {
    command -v "$1-server" >/dev/null || [ -x "$tools/$1/$1-server" ]
}
if has redis && has valkey; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "redis-server or valkey-server is missing: https://redis.io/docs/latest/operate/oss_and_stack/install, https://valkey.io/download" >&2
    exit 1
fi
packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
# A fresh container has no package lists yet; only root can get them.
apt-cache show redis-tools >/dev/null 2>&1 || [ "$(id -u)" != 0 ] || apt-get update -qq

# get NAME PACKAGE...: the server is the checker of its files by another name.
get() {
    local name=$1
    shift
    echo "Getting $name-server out of Debian's package $name-tools"
    rm -rf "$packages/unpacked" "$packages"/*.deb
    (cd "$packages" && apt-get download -qq -o APT::Sandbox::User=root "$@")
    for package in "$packages"/*.deb; do
        dpkg-deb -x "$package" "$packages/unpacked"
    done
    rm -rf "$tools/$name.new"
    install -D -m 755 "$packages/unpacked/usr/bin/$name-check-rdb" "$tools/$name.new/$name-server"
    for library in libjemalloc.so.2 liblzf.so.1; do
        install -m 644 "$packages"/unpacked/usr/lib/*/$library "$tools/$name.new/$library"
    done
    rm -rf "${tools:?}/$name"
    mv "$tools/$name.new" "$tools/$name"
}

has redis || get redis redis-tools libjemalloc2 liblzf1
has valkey && exit
if ! apt-cache show valkey-tools >/dev/null 2>&1; then
    # shellcheck disable=SC1091
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    # shellcheck source=tests/debian.sh
    . tests/debian.sh
    debian_lists "$packages/apt" "$release" "$release-updates" "$release-backports"
fi
get valkey valkey-tools libjemalloc2 liblzf1
