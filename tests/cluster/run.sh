#!/usr/bin/env bash
# Runs the tests on a cluster of one node, which is made of namespaces of its own: processes, mounts, network, cgroups. `make cluster-test` calls
# it, after tests/cluster/install.sh and `make static`.
#
#   tests/cluster/run.sh [-test.run REGEXP] [-test.v] ...
#
# All arguments are those of a Go test's binary. With WASMBOX_CLUSTER_SHELL set, a shell on the node follows, while the cluster runs.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD

fail() {
    echo "tests/cluster: $*" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || fail "a cluster's node is made of namespaces: run this as root"
[ -x target/tools/cluster/bin/kubelet ] || fail "target/tools/cluster is not there: run tests/cluster/install.sh"
[ -x target/static/wasmbox ] || fail "target/static is not there: run \`make static\`"
go -C tests/cluster vet ./...
go -C tests/cluster test -c -o "$root/target/tools/cluster/cluster.test" .

# Not below the working copy, of which the node sees a copy that it may write to.
work=$(mktemp -d --tmpdir=/var/tmp wasmbox-cluster.XXXXXX)
name=$(basename "$work")
# In each hierarchy of cgroups one of its own. On cgroup v2 there is a single one.
mapfile -t hierarchies < <(awk '$3 ~ /^cgroup2?$/ { print $2 }' /proc/self/mounts)
remove_cgroups() {
    local hierarchy
    for hierarchy in "${hierarchies[@]}"; do
        [ -d "$hierarchy/$name" ] || continue
        # What has just ended leaves its cgroup a moment later.
        for _ in {1..100}; do
            find "$hierarchy/$name" -depth -type d -exec rmdir {} + 2>/dev/null && break
            sleep 0.1
        done
        [ ! -d "$hierarchy/$name" ] || { echo "tests/cluster: $hierarchy/$name is left" >&2; left=1; }
    done
}
left= child=
clean_up() {
    status=$?
    # With the first process of the node all others end.
    [ -z "$child" ] || { kill -KILL "$child" 2>/dev/null && wait "$child" 2>/dev/null; } || true
    remove_cgroups
    [ -n "${WASMBOX_CLUSTER_KEEP-}" ] || rm -rf "$work"
    [ -z "$left" ] || status=1
    exit $status
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

for hierarchy in "${hierarchies[@]}"; do
    mkdir "$hierarchy/$name"
    for file in cpuset.cpus cpuset.mems; do
        [ ! -e "$hierarchy/$name/$file" ] || [ ! -e "$hierarchy/$file" ] || cat "$hierarchy/$file" >"$hierarchy/$name/$file"
    done
done
# A process for what is in the node; this one stays outside, and cleans up.
(
    for hierarchy in "${hierarchies[@]}"; do
        sh -c 'echo $PPID' >"$hierarchy/$name/cgroup.procs"
    done
    exec setpriv --pdeathsig KILL unshare --fork --pid --mount --mount-proc --net --ipc --uts --cgroup --propagation private --kill-child=KILL \
        "$root/tests/cluster/node.sh" "$root" "$work" "$@"
) <&0 &
child=$!
status=0
wait $child || status=$?
child=
exit $status
