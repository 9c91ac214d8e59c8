#!/usr/bin/env bash
# The live page, and the search of the documentation site, in a headless Chromium: `make page-test`. A minute; the first time it gets Chromium out of
# Debian's packages into target/tools/chromium, without installing it, and axe-core from npm. Screenshots are left in target/screenshots.
#
#   tests/page/run.sh --figure    takes docs/images/live-page.png anew
#   tests/page/run.sh --mixed     a mixed workload for MIXED_SECONDS beside the page instead: `make mixed`
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() {
    echo "tests/page: $*" >&2
    exit 1
}
command -v node >/dev/null && command -v npm >/dev/null || fail "node and npm are missing: install Node.js 20 or later (https://nodejs.org)"

# `make page-test` and `make mixed` may run at once: one of them gets what both need.
mkdir -p target/tools
exec 9>target/tools/page.lock
flock 9

chromium=$PWD/target/tools/chromium
version=$(sha256sum "$0" | cut -c 1-16)
libraries=$chromium/usr/lib/x86_64-linux-gnu:$chromium/usr/lib/x86_64-linux-gnu/pulseaudio
works() {
    LD_LIBRARY_PATH=$libraries "$chromium/usr/lib/chromium/chromium" --version >/dev/null
}
if [ "$(cat "$chromium/version" 2>/dev/null)" != "$version" ] || ! works; then
    [ "$(uname -m)" = x86_64 ] || fail "Chromium is taken for x86_64, this is $(uname -m)"
    for command in apt-get dpkg-deb; do
        command -v $command >/dev/null || fail "$command is missing: Chromium is taken from Debian's packages"
    done
    rm -rf "$chromium"
    mkdir -p "$chromium/packages"
    # A fresh container has no package lists yet; only root can get them.
    apt-cache show chromium >/dev/null 2>&1 || [ "$(id -u)" != 0 ] || apt-get update -qq
    missing=$(apt-get install --simulate --no-install-recommends -qq chromium fonts-dejavu-core | sed -n 's/^Inst \([^ ]*\).*/\1/p') ||
        fail "apt cannot tell what chromium depends on: run apt-get update; the packages are Debian's"
    echo "Getting Chromium out of Debian's packages"
    # Unsandboxed, since apt's own user may not write here.
    # shellcheck disable=SC2046,SC2086
    (cd "$chromium/packages" && apt-get download -qq -o APT::Sandbox::User=root \
        $(printf '%s\n' chromium fonts-dejavu-core $missing | sort -u)) || fail "a package cannot be had"
    for package in "$chromium"/packages/*.deb; do
        dpkg-deb -x "$package" "$chromium"
    done
    rm -r "$chromium/packages"
    works || fail "Chromium does not run"
    echo "$version" >"$chromium/version"
fi

# What its lock file names, and nothing that is run when it is installed.
modules=$PWD/target/tools/page
if ! cmp -s tests/page/package-lock.json "$modules/package-lock.json" || [ ! -d "$modules/node_modules" ]; then
    rm -rf "$modules"
    mkdir -p "$modules"
    cp tests/page/package.json tests/page/package-lock.json "$modules"
    (cd "$modules" && npm ci --silent --no-audit --no-fund --ignore-scripts) || fail "what package-lock.json names cannot be had from npm"
fi

exec 9>&-

export LIBRARIES=$libraries CHROMIUM=$chromium/usr/lib/chromium/chromium MODULES=$modules
# bounded SECONDS PROGRAM ARGUMENT...: what hangs is ended.
bounded() {
    exec timeout --kill-after=30 "$1" node "${@:2}"
}
case ${1-} in
    --mixed) bounded $((${MIXED_SECONDS:-300} + 300)) tests/page/mixed.mjs ;;
    --figure) bounded 900 tests/page/page.mjs --figure ;;
esac
[ -f target/site/index.html ] || fail "there is no site: run \`make site\`"
(bounded 900 tests/page/page.mjs)
bounded 120 tests/page/search.mjs
