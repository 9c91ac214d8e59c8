#!/usr/bin/env bash
# Gets redis-server, if there is none: into target/tools/redis, out of Debian's packages, since installing them would start a server.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=$PWD/target/tools
if command -v redis-server >/dev/null || [ -x "$tools/redis/redis-server" ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "redis-server is missing: https://redis.io/docs/latest/operate/oss_and_stack/install" >&2
    exit 1
fi
echo "Getting redis-server out of Debian's package redis-tools"
packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
# A fresh container has no package lists yet; only root can get them.
apt-cache show redis-tools >/dev/null 2>&1 || [ "$(id -u)" != 0 ] || apt-get update -qq
cd "$packages"
apt-get download -qq redis-tools libjemalloc2 liblzf1
for package in ./*.deb; do
    dpkg-deb -x "$package" .
done
# The server is the checker of its files by another name.
install -D -m 755 usr/bin/redis-check-rdb "$tools/redis.new/redis-server"
for library in libjemalloc.so.2 liblzf.so.1; do
    install -m 644 usr/lib/*/$library "$tools/redis.new/$library"
done
rm -rf "$tools/redis"
mv "$tools/redis.new" "$tools/redis"
