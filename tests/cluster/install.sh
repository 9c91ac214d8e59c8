#!/usr/bin/env bash
# Gets what a cluster is made of, into target/tools/cluster: `make cluster-test` calls it. Nothing can be pulled where the tests run, so what there
# is as images elsewhere is built from its Go module. Needs Go, and the first time three quarters of an hour of CPU and 16 GB for Go's caches; nothing on the
# system changes. The second time there is nothing to do.
#
#   bin/{kube-apiserver,kube-controller-manager,kube-scheduler,kube-proxy,kubelet,kubectl,etcd,helm,metrics-server}
#   knative/{activator,autoscaler,controller,webhook,queue}, knative/config: its manifests
#   keda/{keda,keda-adapter,keda-admission-webhooks}, keda/config: its manifests
#   prometheus/prometheus
#
# containerd 2.3 is tests/e2e/install-go.sh's; runc and the CNI plugins are tests/containerd/install-debian.sh's.
set -euo pipefail
cd "$(dirname "$0")/../.."

kubernetes=v1.36.3
metrics_server=v0.9.0
helm=v4.3.1
serving=v0.50.0
keda=v2.21.0
# Prometheus 3.16
prometheus=v0.316.0

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
mkdir -p "$tools"/{bin,knative,keda,prometheus}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# source_of MODULE VERSION: the directory of its source.
source_of() {
    local directory
    directory=$(cd "$work" && GOFLAGS=-mod=mod go mod download -json "$1@$2" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
    [ -n "$directory" ] || fail "$1 $2 cannot be had"
    echo "$directory"
}

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
# module DIRECTORY PACKAGE VERSION [FLAG...]
module() {
    build "$1" "$(basename "$2")" "$3" env GOBIN="$1" go install -trimpath -ldflags "-s -w" "${@:4}" "$2@$3"
}
module "$tools/bin" helm.sh/helm/v4/cmd/helm $helm
module "$tools/bin" sigs.k8s.io/metrics-server/cmd/metrics-server $metrics_server
for name in activator autoscaler controller webhook queue; do
    module "$tools/knative" knative.dev/serving/cmd/$name $serving
done
# KEDA's module replaces another one, so it is built where its own go.mod is; and of its seventy scalers those alone that the chart's ScaledObject
# names, since the others' libraries of clouds and databases take longer than all else here. A constant of all is in azure_queue_scaler.go.
keda_source() {
    local source
    source=$(source_of github.com/kedacore/keda/v2 $keda) && cp -r "$source" "$work/keda" && chmod -R u+w "$work/keda" || return
    find "$work/keda/pkg/scalers" -maxdepth 1 -name '*.go' \
        ! -name scaler.go ! -name prometheus_scaler.go ! -name cpu_memory_scaler.go ! -name azure_queue_scaler.go -delete
    awk '/^\tswitch triggerType/ { print; others = 1; next } /^\tcase "/ { others = !/"(cpu|memory|prometheus)"/ } /^\tdefault:/ { others = 0 } !others' \
        "$source/pkg/scaling/scalers_builder.go" >"$work/keda/pkg/scaling/scalers_builder.go"
}
# keda_program COMMAND NAME
keda_program() {
    [ -d "$work/keda" ] || keda_source || return
    go -C "$work/keda" build -trimpath -ldflags "-s -w" -o "$tools/keda/$2" "./cmd/$1"
}
for pair in operator:keda adapter:keda-adapter webhooks:keda-admission-webhooks; do
    build "$tools/keda" "${pair#*:}" $keda keda_program "${pair%:*}" "${pair#*:}"
done
# Of all that it can find targets by, the API of Kubernetes alone: the others are half of the program.
module "$tools/prometheus" github.com/prometheus/prometheus/cmd/prometheus $prometheus -tags remove_all_sd,enable_kubernetes_sd

# Knative's manifests lie in three modules.
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
if [ "$(cat "$tools/keda/.config" 2>/dev/null)" != "$keda" ]; then
    rm -rf "$tools/keda/config"
    source=$(source_of github.com/kedacore/keda/v2 $keda)
    cp -r "$source/config" "$tools/keda/config"
    chmod -R u+w "$tools/keda/config"
    echo $keda >"$tools/keda/.config"
fi

if [ ! -x "$tools/bin/etcd" ]; then
    apt-cache show etcd-server >/dev/null 2>&1 || apt-get update -qq
    (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root etcd-server && dpkg-deb -x ./*.deb .) ||
        fail "Debian's package etcd-server cannot be had"
    "$work/usr/bin/etcd" --version >/dev/null || fail "Debian's etcd does not run here"
    mv "$work/usr/bin/etcd" "$tools/bin/etcd"
fi
