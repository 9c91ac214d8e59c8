#!/usr/bin/env bash
# Gets what a cluster is made of, into target/tools/cluster: `make cluster-test` calls it. Nothing can be pulled where the tests run, so what there
# is as images elsewhere is built from its Go module. Needs Go, and the first time half an hour of CPU and 12 GB for Go's caches; nothing on the
# system changes. The second time there is nothing to do.
#
#   bin/{kube-apiserver,kube-controller-manager,kube-scheduler,kube-proxy,kubelet,kubectl,etcd,helm,metrics-server}
#   knative/{activator,autoscaler,controller,webhook,queue}, knative/config: its manifests
#
# containerd 2.3 is tests/e2e/install-go.sh's; runc and the CNI plugins are tests/containerd/install-debian.sh's.
set -euo pipefail
cd "$(dirname "$0")/../.."

kubernetes=v1.36.3
metrics_server=v0.9.0
helm=v4.3.1
serving=v0.50.0

tools=$PWD/target/tools/cluster
fail() {
    echo "tests/cluster: $*" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || fail "a cluster's node is made of namespaces: run this as root"
command -v go >/dev/null || fail "Go is missing: install it from https://go.dev/dl, or Debian's package golang"
for command in unshare:util-linux ip:iproute2 iptables:iptables curl:curl buildah:buildah; do
    command -v "${command%:*}" >/dev/null && continue
    command -v apt-get >/dev/null || fail "${command%:*} is missing: install the package ${command#*:}"
    apt-cache show "${command#*:}" >/dev/null 2>&1 || apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "${command#*:}" >/dev/null ||
        fail "the package ${command#*:} cannot be installed"
done
tests/containerd/install-debian.sh
tests/e2e/install-go.sh
mkdir -p "$tools"/{bin,knative}

# One program after the other: the linker of one takes up to 2 GB. What is there in this version is not built again.
# build DIRECTORY NAME VERSION COMMAND...
build() {
    local file=$1/$2 version=$3 started=$SECONDS
    shift 3
    [ -x "$file" ] && [ "$(cat "${file%/*}/.${file##*/}" 2>/dev/null)" = "$version" ] && return
    echo "Building ${file##*/} $version"
    CGO_ENABLED=0 "$@" || fail "${file##*/} $version cannot be built"
    echo "$version" >"${file%/*}/.${file##*/}"
    echo "... in $((SECONDS - started)) s"
}
# Without a version charts refuse it, and so do its own parts each other.
ldflags="-s -w -X k8s.io/component-base/version.gitVersion=$kubernetes"
ldflags+=" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"
for name in kube-apiserver kubelet kube-controller-manager kube-scheduler kubectl kube-proxy; do
    build "$tools/bin" $name $kubernetes go -C tests/cluster/kubernetes build -trimpath -ldflags "$ldflags" -o "$tools/bin/$name" k8s.io/kubernetes/cmd/$name
done
# module DIRECTORY PACKAGE VERSION
module() {
    build "$1" "$(basename "$2")" "$3" env GOBIN="$1" go install -trimpath -ldflags "-s -w" "$2@$3"
}
module "$tools/bin" helm.sh/helm/v4/cmd/helm $helm
module "$tools/bin" sigs.k8s.io/metrics-server/cmd/metrics-server $metrics_server
for name in activator autoscaler controller webhook queue; do
    module "$tools/knative" knative.dev/serving/cmd/$name $serving
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Knative's manifests lie in three modules. source_of MODULE VERSION: the directory of its source.
source_of() {
    local directory
    directory=$(cd "$work" && GOFLAGS=-mod=mod go mod download -json "$1@$2" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
    [ -n "$directory" ] || fail "$1 $2 cannot be had"
    echo "$directory"
}
if [ "$(cat "$tools/knative/.config" 2>/dev/null)" != "$serving" ]; then
    rm -rf "$tools/knative/config"
    mkdir "$tools/knative/config"
    source=$(source_of knative.dev/serving $serving)
    cp -r "$source/config/core" "$tools/knative/config"
    for name in networking caching; do
        version=$(awk -v module=knative.dev/$name '$1 == module { print $2 }' "$source/go.mod")
        other=$(source_of knative.dev/$name "$version")
        cp -r "$other/config" "$tools/knative/config/$name"
    done
    chmod -R u+w "$tools/knative/config"
    echo $serving >"$tools/knative/.config"
fi

if [ ! -x "$tools/bin/etcd" ]; then
    apt-cache show etcd-server >/dev/null 2>&1 || apt-get update -qq
    (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root etcd-server && dpkg-deb -x ./*.deb .) ||
        fail "Debian's package etcd-server cannot be had"
    "$work/usr/bin/etcd" --version >/dev/null || fail "Debian's etcd does not run here"
    mv "$work/usr/bin/etcd" "$tools/bin/etcd"
fi
