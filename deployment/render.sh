#!/usr/bin/env bash
# Renders the plain manifests from the chart, which is their one source. `--check` changes nothing, and fails if one differs.
set -euo pipefail
cd "$(dirname "$0")/.."

helm=${HELM:-helm}
check=
[ "${1-}" != --check ] || check=true
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
stale=0

# Services of Knative have a name of their own: in one namespace with deployment/kubernetes neither takes the other's Service or pods.
release=wasmbox
# manifest FILE TEMPLATE [HELM ARGUMENTS]
manifest() {
    local file=$1 template=$2
    shift 2
    {
        echo "# Rendered from deployment/chart by deployment/render.sh: change it there."
        "$helm" template "$release" deployment/chart --show-only "templates/$template.yaml" "$@" |
            # The separators between documents stay, helm's own lines and empty ones before separators go.
            awk '/^# Source: / { next } /^---$/ { if (begun) separator = 1; next } /^$/ { next } { if (separator) print "---"; separator = 0; begun = 1; print }'
    } >"$new/manifest"
    if [ -z "$check" ]; then
        cp "$new/manifest" "$file"
    elif ! diff -u "$file" "$new/manifest"; then
        stale=1
    fi
}

manifest deployment/functions/pvc.yaml pvc
for template in deployment service hpa networkpolicy poddisruptionbudget; do
    manifest "deployment/kubernetes/$template.yaml" "$template"
done
manifest deployment/kubernetes/scaledobject.yaml scaledobject --set keda.enabled=true --namespace default
release=wasmbox-knative
manifest deployment/knative/ksvc-standalone.yaml ksvc --set workload=knative
manifest deployment/knative/networkpolicy.yaml networkpolicy --set workload=knative
manifest deployment/knative-fork/ksvc.yaml ksvc --set workload=knative-fork
manifest deployment/knative-fork/networkpolicy.yaml networkpolicy --set workload=knative-fork
release=wasmbox
manifest deployment/container-only/deployment.yaml deployment \
    --set runtimeClass.name=,cgroupClaim=wasmbox-cgroup,hpa.enabled=false,deployment.replicas=1
manifest deployment/node/installer.yaml installer --set installer.create=true --namespace wasmbox-system
manifest runtimeclass/runtimeclass.yaml runtimeclass --set runtimeClass.create=true
if [ $stale != 0 ]; then
    echo "Manifests differ from the chart: run deployment/render.sh" >&2
    exit 1
fi
