#!/usr/bin/env bash
# The first process of the node: mounts what is its own, and runs the tests there. tests/cluster/run.sh starts it in new namespaces.
#
#   node.sh ROOT WORK ARGUMENTS...
set -euo pipefail
root=$1 work=$2
shift 2
tools=$root/target/tools

hostname node
# Its own sysfs shows its own network; its own cgroup file systems end where its cgroup does.
mapfile -t cgroups < <(awk '$3 ~ /^cgroup2?$/ { print $2, $3, $4 }' /proc/self/mounts)
mount -t sysfs sysfs /sys
if [ "${#cgroups[@]}" = 1 ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    # Where controllers are on for children, a cgroup has no processes of its own.
    mkdir /sys/fs/cgroup/services
    xargs -n 1 </sys/fs/cgroup/cgroup.procs >/sys/fs/cgroup/services/cgroup.procs 2>/dev/null || true
    sed 's/^/+/; s/ / +/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
else
    mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
    for line in "${cgroups[@]}"; do
        read -r directory type options <<<"$line"
        mkdir -p "$directory"
        # The hierarchy's names without options of the mount.
        options=$(tr , '\n' <<<"$options" | grep -vE '^(rw|ro|relatime|nosuid|nodev|noexec|xattr|release_agent=.*|clone_children|nsdelegate|memory_recursiveprot)$' | paste -sd , || true)
        case $options in name=*) options=none,$options ;; esac
        mount -t "$type" ${options:+-o "$options"} cgroup "$directory"
    done
fi

# Files of this machine are there to read; what a node writes to is its own.
mkdir -p "$work"/{etc/cni/net.d,etc/kubernetes,etc/containerd,opt/cni/bin,var/{cache,lib,log,tmp},bin,copy,copy-work}
for file in alternatives containers group ld.so.cache localtime nsswitch.conf passwd protocols services ssl; do
    [ ! -e "/etc/$file" ] || cp -a "/etc/$file" "$work/etc"
done
echo node >"$work/etc/hostname"
echo "127.0.0.1 localhost" >"$work/etc/hosts"
: >"$work/etc/resolv.conf"
cp "$tools"/containerd/cni/{ptp,host-local,loopback,portmap} "$work/opt/cni/bin"
cp tests/cluster/systemctl "$work/bin"
programs=("$tools"/go/containerd-2.3/{containerd,ctr,containerd-shim-runc-v2} "$tools/go/registry" "$tools/containerd/runc" "$tools"/cluster/bin/*)
ln "${programs[@]}" "$work/bin" 2>/dev/null || cp "${programs[@]}" "$work/bin"
# Documents' commands are run in a copy of the working copy.
mount -t overlay overlay -o "lowerdir=$root,upperdir=$work/copy,workdir=$work/copy-work" "$root"
for pair in etc:/etc opt:/opt bin:/usr/local/bin var:/var; do
    mount --bind "$work/${pair%:*}" "${pair#*:}"
done
for directory in /run /tmp /root; do
    mount -t tmpfs -o mode=755 tmpfs "$directory"
done
ln -s ../run /var/run
chmod 1777 /tmp /var/tmp
mount -o remount,bind,ro /
# kubelet sets these for the whole machine, unless they are what it wants.
for pair in vm/overcommit_memory:1 kernel/panic:10 kernel/panic_on_oops:1; do
    echo "${pair#*:}" >"/run/${pair##*/}"
    mount --bind "/run/${pair##*/}" "/proc/sys/${pair%:*}"
done
mount --make-rshared /

# An interface with a default route, as nodes have; it leads nowhere.
ip link set lo up
ip link add uplink type veth peer name nowhere
ip address add 10.200.0.2/24 dev uplink
ip link set uplink up
ip link set nowhere up
ip route add default via 10.200.0.1
echo 1 >/proc/sys/net/ipv4/ip_forward

cd "$root"
export PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root WASMBOX_CLUSTER_NODE=1
# Not exec: the first process takes in orphans, and this one does that.
"$tools/cluster/cluster.test" "$@"
