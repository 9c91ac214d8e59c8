#!/usr/bin/env bash
# Runs a command in a virtual machine with a pure cgroup v2 hierarchy, on any machine: software emulation, so 2 to 26 times slower.
#
#   tests/vm/run.sh [--systemd] [--restart] [--memory MIB] [--deadline SECONDS] [--] COMMAND...
#
# The command runs as root in this working copy. It sees the host's files and may change them; the changes are in the virtual machine's memory
# and end with it. /tmp, /var/tmp, /run, /dev, /proc and /sys are its own, /sys/fs/cgroup is cgroup v2 with all controllers for children. Of the
# environment it gets PATH, HOME, RUST_BACKTRACE, and what begins with WASMBOX_; there is no network but the loopback interface.
#
# With --systemd it is a node: Debian's files, systemd as the first process, containerd as its unit; of the host it has the working copy alone.
#
# With --restart, which needs --systemd, changes are on a disk. When the command has succeeded, the machine is switched off, whatever runs, and started
# again from that disk; the command then runs once more. WASMBOX_VM_BOOT is 1, and then 2; the deadline is for each.
#
# Output is passed on as it comes. The exit code is the command's; 124: the deadline (300 s) passed; 125: the virtual machine failed.
set -euo pipefail

usage() {
    sed -n '4s/^# *//p' "$0" >&2
    exit 125
}
systemd=
boots=1
memory=1024
deadline=300
while [ $# -gt 0 ]; do
    case $1 in
        --systemd) systemd=1; shift ;;
        --restart) boots=2; shift ;;
        --memory) memory=${2-}; shift 2 || usage ;;
        --deadline) deadline=${2-}; shift 2 || usage ;;
        --) shift; break ;;
        -*) usage ;;
        *) break ;;
    esac
done
[ $# -gt 0 ] && { [ -n "$systemd" ] || [ $boots = 1 ]; } && [[ $memory =~ ^[1-9][0-9]*$ ]] && [[ $deadline =~ ^[1-9][0-9]*$ ]] || usage

root=$(realpath "$(dirname "$0")/../..")
vm=$root/target/tools/vm
work=

# However this ends, nothing stays. A signal ends the children, and by that what waits for them: it does not exit, for the next one
# could then come into the cleaning. The processes end with this one also if it is killed, by the signal that setpriv asks for.
children=()
signal=0
end_children() {
    [ ${#children[@]} = 0 ] || kill "${children[@]}" 2>/dev/null || true
}
end_and_wait() {
    end_children
    until wait; do :; done
    children=()
}
clean_up() {
    end_and_wait
    [ -z "$work" ] || rm -rf "$work"
}
trap clean_up EXIT
trap 'signal=1; end_children' HUP
trap 'signal=2; end_children' INT
trap 'signal=15; end_children' TERM

exit_if_told() {
    [ $signal = 0 ] || exit $((128 + signal))
}
fail() {
    exit_if_told
    echo "tests/vm/run.sh: $*" >&2
    exit 125
}

[ "$(id -u)" = 0 ] || fail "must be run by root, whom virtiofsd needs to be to show all of the host's files"
[ -e "$vm/version" ] || fail "target/tools/vm is not there: run tests/vm/install-debian.sh, which takes it from Debian's packages"
[ -z "$systemd" ] || [ -e "$root/target/tools/systemd/version" ] ||
    fail "target/tools/systemd is not there: run tests/vm/install-systemd.sh, which takes it from Debian's packages"
virtiofsd=$(find "$vm/usr/lib/qemu" "$vm/usr/libexec" -name virtiofsd 2>/dev/null | head -n 1)
[ -n "$virtiofsd" ] || fail "virtiofsd is not in $vm: its package is qemu-system-common, or virtiofsd"
for command in unshare:util-linux setpriv:util-linux timeout:coreutils; do
    command -v "${command%:*}" >/dev/null || fail "${command%:*} is missing: install the package ${command#*:}"
done

# The path of a socket has at most 107 bytes.
work=$(mktemp -d /tmp/wasmbox-vm.XXXXXX)
mkfifo "$work/stdout" "$work/stderr"
disk=()
if [ $boots -gt 1 ]; then
    # Only what is written to it takes place.
    truncate --size 8G "$work/disk"
    disk=(-drive "file=$work/disk,format=raw,if=virtio,cache=unsafe")
fi

# Names the libraries for one command only: the others have the system's.
export_libraries=(env "LD_LIBRARY_PATH=$vm/usr/lib/x86_64-linux-gnu:$vm/lib/x86_64-linux-gnu")

# The machine, from its start to its end: boot NUMBER. Then $ended is qemu's exit code, and $status the command's, or empty.
boot() {
    rm -f "$work/status" "$work/files.socket"
    # The kernel takes the initial file system as a cpio archive.
    mkdir "$work/files"
    local words=("PATH=$PATH" "HOME=/root")
    for name in RUST_BACKTRACE "${!WASMBOX_@}"; do
        [ -z "${!name+set}" ] || words+=("$name=${!name}")
    done
    if [ $boots -gt 1 ]; then
        words+=("WASMBOX_VM_BOOT=$1")
        touch "$work/files/disk"
        [ "$1" = $boots ] || touch "$work/files/switch-off"
    fi
    printf '%s' "$root" >"$work/files/directory"
    # The host's env: busybox prefers programs of its own.
    echo "exec /usr/bin/env -i ${words[*]@Q} ${command[*]@Q}" >"$work/files/command"
    cp -r "$vm/busybox" "$vm/modules" "$root/tests/vm/init" "$root/tests/vm/session" "$work/files"
    [ -z "$systemd" ] || touch "$work/files/systemd"
    (cd "$work/files" && find . | "$vm/busybox" cpio -o -H newc >../initramfs 2>/dev/null)
    rm -r "$work/files"

    # The host's files, read-only: for the virtual machine's root, too. /run is virtiofsd's own, for a lock file.
    # shellcheck disable=SC2016
    setpriv --pdeathsig KILL unshare --mount --propagation private bash -c '
        while read -r _ directory type _; do
            case $type in ext?|xfs|btrfs|overlay|zfs|nfs*|tmpfs) mount -o remount,bind,ro "$(printf %b "$directory")" 2>/dev/null ;; esac
        done </proc/self/mounts
        mount --bind "$1" "$1" && mount -o remount,bind,rw "$1"
        mount -t tmpfs run /run
        shift
        ulimit -n "$(ulimit -Hn)"
        exec "$@"' bash "$work" \
        "${export_libraries[@]}" "$virtiofsd" --socket-path="$work/files.socket" --rlimit-nofile=0 \
        -o source=/ -o sandbox=chroot -o cache=always -o log_level=err >"$work/virtiofsd.log" 2>&1 &
    children+=($!)
    for _ in {1..100}; do
        [ ! -S "$work/files.socket" ] || break
        kill -0 "${children[0]}" 2>/dev/null || break
        sleep 0.05
    done
    [ -S "$work/files.socket" ] || fail "virtiofsd does not start: $(cat "$work/virtiofsd.log")"

    # no_timer_check: the kernel would take a processor that waits for a busy machine for a broken timer, and panic.
    setpriv --pdeathsig TERM timeout --kill-after=5 "$deadline" setpriv --pdeathsig KILL \
        "${export_libraries[@]}" "$vm/usr/bin/qemu-system-x86_64" \
        -L "$vm/usr/share/qemu" -L "$vm/usr/share/seabios" -nodefaults -no-user-config -display none -no-reboot \
        -accel tcg,thread=multi -cpu max -smp 2 -m "${memory}M" \
        -object "memory-backend-memfd,id=memory,size=${memory}M,share=on" -machine q35,memory-backend=memory \
        -kernel "$vm/kernel" -initrd "$work/initramfs" \
        -append "console=ttyS0 quiet panic=-1 no_timer_check cgroup_no_v1=all rdinit=/init" \
        -chardev "file,id=console,path=$work/console" -serial chardev:console \
        -device virtio-serial-pci \
        -chardev "file,id=stdout,path=$work/stdout" -device virtserialport,nr=1,chardev=stdout \
        -chardev "file,id=stderr,path=$work/stderr" -device virtserialport,nr=2,chardev=stderr \
        -chardev "file,id=status,path=$work/status" -device virtserialport,nr=3,chardev=status \
        -chardev "socket,id=files,path=$work/files.socket" -device vhost-user-fs-pci,chardev=files,tag=host \
        "${disk[@]}" >"$work/qemu.log" 2>&1 &
    local qemu=$!
    cat "$work/stdout" &
    outputs=($!)
    cat "$work/stderr" >&2 &
    outputs+=($!)
    children+=("$qemu" "${outputs[@]}")
    exit_if_told

    ended=0
    wait "$qemu" || ended=$?
    exit_if_told
    status=$(cat "$work/status" 2>/dev/null || true)
    # All of the output is in the pipes.
    [ -z "$status" ] || wait "${outputs[@]}"
    end_and_wait
    exit_if_told
}

command=("$@")
for ((number = 1; number <= boots; number++)); do
    boot $number
    [ "$status" = 0 ] || break
done
[ -z "$status" ] || exit "$status"
echo "tests/vm/run.sh: the virtual machine's console:" >&2
cat "$work/qemu.log" "$work/virtiofsd.log" "$work/console" >&2 2>/dev/null || true
if [ "$ended" = 124 ] || [ "$ended" = 137 ]; then
    echo "tests/vm/run.sh: the command did not end within $deadline s, so the virtual machine was ended: ${*@Q}" >&2
    exit 124
fi
fail "the virtual machine ended without the command's exit code (qemu: $ended); above is its console"
