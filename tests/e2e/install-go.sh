#!/usr/bin/env bash
# Builds what is to be had as Go modules only, into target/tools/go: `make e2e` calls it. Needs Go, and for some minutes the first time.
#
#   containerd-2.3/{containerd,ctr,containerd-shim-runc-v2}: starts shims with BootstrapParams
#   cosign: signs what is in registries
#   h2spec: a conformance suite for HTTP/2
#   otelcol: a collector of OpenTelemetry, of the few parts that tests/e2e/collector names
#   queue: Knative's queue-proxy, as it is released
#   registry: of images, of the distribution project
#   runc: a version that maps users of mounts, for pods with a user namespace; in C, too, and without seccomp
set -euo pipefail
cd "$(dirname "$0")/../.."

containerd=v2.3.7
cosign=v3.1.3
h2spec=v2.2.1+incompatible
serving=v0.50.0
runc=v1.2.6
distribution=v3.1.1

command -v go >/dev/null || { echo "Go is missing: install it from https://go.dev/dl, or Debian's package golang" >&2; exit 1; }
tools=$PWD/target/tools/go
# build DIRECTORY PACKAGE@VERSION: unless it was built in this version.
build() {
    local directory=$1 package=$2 name
    name=$(basename "${package%@*}")
    [ "$(cat "$directory/.$name" 2>/dev/null)" != "$package" ] || return 0
    echo "Building $package"
    CGO_ENABLED=${cgo:-0} GOBIN=$directory go install -trimpath -ldflags '-s -w' "$package"
    echo "$package" >"$directory/.$name"
}
mkdir -p "$tools/containerd-2.3"
for command in containerd ctr containerd-shim-runc-v2; do
    build "$tools/containerd-2.3" "github.com/containerd/containerd/v2/cmd/$command@$containerd"
done
build "$tools" "github.com/sigstore/cosign/v3/cmd/cosign@$cosign"
build "$tools" "github.com/summerwind/h2spec/cmd/h2spec@$h2spec"
build "$tools" "github.com/distribution/distribution/v3/cmd/registry@$distribution"
build "$tools" "knative.dev/serving/cmd/queue@$serving"
# Of a module of our own: unless it was built of these sources.
sources=$(cat tests/e2e/collector/* | sha256sum)
if [ "$(cat "$tools/.otelcol" 2>/dev/null)" != "$sources" ]; then
    echo "Building OpenTelemetry's collector"
    CGO_ENABLED=0 go build -C tests/e2e/collector -trimpath -ldflags '-s -w' -o "$tools/otelcol" .
    echo "$sources" >"$tools/.otelcol"
fi
cgo=1 build "$tools" "github.com/opencontainers/runc@$runc"
