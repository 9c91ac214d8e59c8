#!/usr/bin/env bash
# Checks the packages of `make packages`: what is in them, that the .deb is installed and removed by dpkg and its program runs, that the unit is sound.
# As root, since dpkg changes its root directory to that of the test. lintian is used where it is installed.
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() {
    echo "tests/packages/run.sh: $*" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || fail "must run as root, for dpkg --root"
deb=$(realpath target/packages/wasmbox_*.deb)
rpm=$(realpath target/packages/wasmbox-*.rpm)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

files=(
    /usr/bin/wasmbox /usr/bin/containerd-shim-wasmbox-v1 /usr/lib/systemd/system/wasmbox{.service,-call@.service,-call@.timer} /usr/lib/sysusers.d/wasmbox.conf
    /etc/wasmbox/config.toml /etc/wasmbox/environment /var/lib/wasmbox/functions/README
    /usr/share/bash-completion/completions/wasmbox /usr/share/zsh/site-functions/_wasmbox
    /usr/share/fish/vendor_completions.d/wasmbox.fish
)

echo "=== $(basename "$deb")"
dpkg-deb --fsys-tarfile "$deb" | tar -t | sed 's/^\.//' >"$work/deb"
for file in "${files[@]}" /usr/share/man/man1/wasmbox{,-serve}.1.gz /usr/share/doc/wasmbox/copyright; do
    grep -qxF "$file" "$work/deb" || fail "$deb has no $file"
done
# A machine that has nothing but dpkg's records: the program needs no library. The scripts are not run, for there is no shell.
root=$work/root
mkdir -p "$root"/var/lib/dpkg/{info,updates}
touch "$root/var/lib/dpkg/status"
mkdir "$work/plain"
dpkg-deb --raw-extract "$deb" "$work/plain"
rm "$work"/plain/DEBIAN/{postinst,prerm,postrm}
dpkg-deb --build -Znone "$work/plain" "$work/plain.deb" >/dev/null
dpkg --root="$root" --install "$work/plain.deb" >/dev/null
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
[ "$(chroot "$root" /usr/bin/wasmbox --version)" = "wasmbox $version" ] || fail "the installed program is not of version $version"
cat >"$root/hello.wat" <<'WAT'
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 8) "installed\n") (data (i32.const 0) "\08\00\00\00\0a\00\00\00")
  (func (export "_start") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 24)))))
WAT
mkdir "$root/proc" "$root/dev"
# In a namespace of its own, so that no mount is left.
ran=$(unshare --mount sh -c 'mount --bind /proc "$0/proc" && mount --bind /dev "$0/dev" && chroot "$0" /usr/bin/wasmbox run --cache-dir none hello.wat' "$root")
[ "$ran" = installed ] || fail "the installed program does not run a module"
echo "# changed" >>"$root/etc/wasmbox/config.toml"
dpkg --root="$root" --remove wasmbox >/dev/null
[ ! -e "$root/usr/bin/wasmbox" ] || fail "the program is left after its removal"
grep -qx "# changed" "$root/etc/wasmbox/config.toml" || fail "the administrator's settings did not outlive the removal"
dpkg --root="$root" --purge wasmbox >/dev/null
[ ! -e "$root/etc/wasmbox" ] || fail "settings are left after purging"
if command -v lintian >/dev/null; then
    # Static, since it is for any distribution; no changelog of Debian's, since it is not Debian's package.
    lintian --allow-root --fail-on error --suppress-tags statically-linked-binary,no-changelog,initial-upload-closes-no-bugs,no-manual-page "$deb"
fi

echo "=== $(basename "$rpm")"
tests/packages/rpm-debian.sh
PATH=$PWD/target/tools/rpm/bin:$PATH
rpm --query --list --package "$rpm" >"$work/list"
for file in "${files[@]}" /usr/share/man/man1/wasmbox{,-serve}.1 /usr/share/licenses/wasmbox/LICENSE; do
    grep -qxF "$file" "$work/list" || fail "$rpm has no $file"
done
rpm --query --configfiles --package "$rpm" | sort | diff - <(printf '%s\n' /etc/wasmbox/{config.toml,environment}) || fail "not these are the .rpm's settings"
rpm --query --requires --package "$rpm" | grep -v '^rpmlib\|^/bin/sh\|^config(' && fail "the .rpm requires what the program does not need"
[ "$(rpm --query --queryformat '%{VERSION} %{LICENSE}' --package "$rpm")" = "$version Apache-2.0" ] || fail "version or licence of the .rpm"

echo "=== units"
if command -v systemd-analyze >/dev/null; then
    cp "$PWD"/deployment/systemd/wasmbox.service "$PWD"/deployment/schedules/wasmbox-call@.{service,timer} "$work"
    # The program is not installed on this machine.
    sed -i "s#/usr/bin/wasmbox#$PWD/target/packages/root&#; /^Documentation=/d" "$work"/*.service
    (cd "$work" && systemd-analyze verify --man=no wasmbox.service wasmbox-call@hello.{service,timer} 2>&1) | grep -F wasmbox && fail "systemd does not accept a unit"
    # Tenths: 3.0 is what systemd calls OK.
    systemd-analyze security --offline=true --threshold=30 deployment/systemd/wasmbox.service >"$work/security" || { cat "$work/security"; fail "the unit is more exposed than 3.0"; }
    grep Overall "$work/security"
else
    fail "systemd-analyze is missing: install the package systemd"
fi
echo "the packages are sound"
