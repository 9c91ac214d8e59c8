#!/usr/bin/env bash
# Checks all of deployment/, runtimeclass/ and the Dockerfile: `make deploy-test`. Renders the chart with a real helm and the bases with a real
# kustomize, holds the result and the Trigger of docs/events.md against the schemas of Kubernetes, Knative, KEDA and the Prometheus Operator, tests the alerts with promtool, has
# containerd read the fragments, builds the image's final stage from the binaries in target/static, and runs it. What it needs goes into target/tools; a tool that cannot be had is an error.
set -euo pipefail
cd "$(dirname "$0")/../.."

helm=v4.3.1
kustomize=v5.8.1
# The newest, and the one that the resource-aware fork is made of (1.15.2).
serving=(v0.51.0 v0.42.2)
# The operator of Knative, whose module has the released manifests of Eventing.
operator=v0.42.2
eventing=1.15.0
keda=v2.21.0
prometheus_operator=v0.85.0

tools=$PWD/target/tools/deployment
work=$PWD/target/deployment
wasmbox=${WASMBOX_BIN:-target/static/wasmbox}
fail() {
    echo "tests/deployment: $*" >&2
    exit 1
}
part() { printf -- '--- %s\n' "$*"; }
[ -x target/static/wasmbox ] || fail "target/static is not there: run \`make static\`"
rm -rf "$work" && mkdir -p "$work" "$tools"

part "tools"
command -v go >/dev/null || fail "Go is missing, which builds helm and kustomize: install it from https://go.dev/dl"
# module COMMAND PACKAGE@VERSION
module() {
    [ "$(cat "$tools/.$1" 2>/dev/null)" = "$2" ] && return
    echo "Building $2"
    CGO_ENABLED=0 GOBIN=$tools go install -trimpath "$2" || fail "$2 cannot be built"
    echo "$2" >"$tools/.$1"
}
module helm "helm.sh/helm/v4/cmd/helm@$helm"
module kustomize "sigs.k8s.io/kustomize/kustomize/v5@$kustomize"
# source_of MODULE VERSION: the directory of its source.
source_of() {
    (cd "$work" && GOFLAGS=-mod=mod go mod download -json "$1@$2" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
}
crds=() serving_dir=
for version in "${serving[@]}"; do
    directory=$(source_of knative.dev/serving "$version")
    [ -n "$directory" ] || fail "knative.dev/serving $version cannot be had"
    serving_dir=${serving_dir:-$directory}
    crds+=("$directory/config/core/300-resources")
done
directory=$(source_of knative.dev/operator $operator)/cmd/operator/kodata/knative-eventing/$eventing
[ -d "$directory" ] || fail "Knative Eventing $eventing cannot be had from knative.dev/operator $operator"
crds+=("$directory")
directory=$(source_of github.com/kedacore/keda/v2 $keda)
[ -n "$directory" ] || fail "KEDA $keda cannot be had"
crds+=("$directory/config/crd/bases")
directory=$(source_of github.com/prometheus-operator/prometheus-operator $prometheus_operator)
[ -n "$directory" ] || fail "the Prometheus Operator $prometheus_operator cannot be had"
# Two of ten, which are large.
mkdir "$work/prometheus-operator-$prometheus_operator"
cp "$directory"/example/prometheus-operator-crd/monitoring.coreos.com_{podmonitors,prometheusrules}.yaml "$work/prometheus-operator-$prometheus_operator"
crds+=("$work/prometheus-operator-$prometheus_operator")
if ! cmp -s tests/deployment/requirements.txt "$tools/requirements.txt"; then
    rm -rf "$tools/venv"
    python3 -m venv "$tools/venv" || fail "on Debian and Ubuntu: apt-get install python3-venv"
    "$tools/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r tests/deployment/requirements.txt
    cp tests/deployment/requirements.txt "$tools/requirements.txt"
fi
tests/containerd/install-debian.sh
tests/promtool-debian.sh
promtool=$(PATH=$PWD/target/tools/bin:$PATH command -v promtool)
python=$tools/venv/bin/python helm=$tools/helm

part "the chart"
chart=deployment/chart
HELM=$helm deployment/render.sh --check
# release NAME ARGUMENTS: a set of values to be rendered.
release() {
    local name=$1
    shift
    "$helm" lint --quiet --strict "$chart" "$@" || fail "helm lint: $name"
    "$helm" template wasmbox "$chart" --namespace default "$@" >"$work/chart-$name.yaml"
}
release deployment
release knative --set workload=knative
release knative-fork --set workload=knative-fork
release keda --set keda.enabled=true
release custom-metric --set hpa.requestedMemory=1536Mi
release container-only --set runtimeClass.name=,cgroupClaim=wasmbox-cgroup
release no-cgroups --set runtimeClass.name=,workload=knative
release node --set workload=none,installer.create=true,runtimeClass.create=true
release uninstall --set workload=none,installer.create=true,installer.uninstall=true
release settings --set functions.subPath=functions,settings.LOG_LEVEL=debug,settings.QUEUE_DEPTH_RESOURCE_UNITS=8192
echo 'settings: {QUEUE_DEPTH_RESOURCE_UNITS: 10000000, OVERBOOKING_RATIO: 1.5}' >"$work/values"
release numbers --values "$work/values" --set resources.limits.cpu=1 --set-json resources.requests.cpu=0.5
small=(--set "resources.requests.cpu=100m,resources.limits.cpu=2" --set "resources.requests.memory=256Mi,resources.limits.memory=256Mi")
release small "${small[@]}" --set hpa.minReplicas=1,functions.accessModes='{ReadWriteOnce}'
release small-knative "${small[@]}" --set workload=knative,functions.create=false
digest=sha256:$(printf '%064d' 7)
release digest --set image.digest="$digest" --set installer.create=true
monitoring=(--set "metrics.podMonitor.enabled=true,metrics.rules.enabled=true,metrics.dashboard.enabled=true")
release monitoring "${monitoring[@]}" --set metrics.labels.release=prometheus,metrics.podMonitor.interval=15s \
    --set metrics.rules.runbookUrl=https://wiki.example/runbook
release monitoring-knative "${monitoring[@]}" --set workload=knative
release monitoring-fork "${monitoring[@]}" --set workload=knative-fork
release monitoring-none "${monitoring[@]}" --set workload=none
release uploads --set uploads.enabled=true,uploads.secret=tokens
release image-volume --set functions.image.reference="registry.example/team/functions:1.0@$digest",functions.image.pullPolicy=Always
! grep -qi PersistentVolumeClaim "$work/chart-image-volume.yaml" || fail "functions.image: there is a claim still"
release others --set networkPolicy.enabled=false,podDisruptionBudget.enabled=false,hpa.enabled=false,deployment.preStopSeconds=0
# What is not in the schema is refused, and named.
for wrong in workload=statefulset replicas=3 image.tagg=1 image.digest=latest resources.limits.memory=lots resources.limits.cpu=0 \
    resources.requests.cpu=1Gi settings.log-level=debug hpa.minReplicas=0 hpa.cpuUtilization=150 keda.minReplicas=0 metrics.podMonitor.interval=often \
    metrics.rules.runbookUrl=a#b metrics.serviceMonitor=true uploads.secret=A_B functions.image.reference=/a functions.image.tag=1; do
    if "$helm" template wasmbox "$chart" --set "$wrong" >/dev/null 2>"$work/refused"; then
        fail "the chart takes $wrong"
    fi
    key=${wrong%=*}
    grep -q "${key##*.}" "$work/refused" || fail "the chart does not say what is wrong with $wrong: $(cat "$work/refused")"
done

# An image of functions goes with what can have it.
for wrong in "--set workload=knative" "--set uploads.enabled=true" "--set functions.subPath=functions" "--kube-version 1.32"; do
    # shellcheck disable=SC2086
    if "$helm" template wasmbox "$chart" --set functions.image.reference=registry.example/functions:1 $wrong >/dev/null 2>"$work/refused"; then
        fail "the chart takes functions.image with $wrong"
    fi
    grep -q "functions.image" "$work/refused" || fail "the chart does not say what is wrong with functions.image and $wrong: $(cat "$work/refused")"
done

# says RELEASE TEXT
says() {
    grep -qF -- "$2" "$work/chart-$1.yaml" || fail "the release \"$1\" does not say: $2"
}
says numbers 'value: "10000000"'
says numbers 'value: "1.5"'
says numbers 'cpu: 1'
says numbers 'cpu: 0.5'
says image-volume "reference: \"registry.example/team/functions:1.0@$digest\""
says image-volume 'pullPolicy: Always'
says uploads 'secretName: tokens'
says uploads 'value: "/etc/wasmbox/uploads/token"'
[ "$(grep -cF "image: wasmbox@$digest" "$work/chart-digest.yaml")" = 3 ] || fail "not each of the three containers is of the image's digest"
# The DaemonSet that uninstalls is rolled out when each node is what it was: an init container ends then.
awk '/ initContainers:/ { init = 1 } /^      containers:/ { init = 0 } init && /args: \["uninstall"/ && !/--watch/ { found = 1 } END { exit !found }' \
    "$work/chart-uninstall.yaml" || fail "the rollout of uninstalling does not wait for its end"

part "alerts and the dashboard"
"$promtool" check rules $chart/monitoring/{rules,absent}.yaml
"$promtool" test rules tests/deployment/rules-test.yaml
"$python" tests/deployment/monitoring.py "$work/queries"
"$promtool" check rules "$work/queries"
# What the operator would give Prometheus, and the dashboard, are the files; and only boxes that are always there are missed.
"$python" - "$work" $chart/monitoring <<'PYTHON'
import json, pathlib, sys, yaml
work, files = map(pathlib.Path, sys.argv[1:])
rules, absent = (yaml.safe_load((files / f"{name}.yaml").read_text().replace("docs/runbook.md#", "https://wiki.example/runbook#")) for name in ("rules", "absent"))
plain = yaml.safe_load((files / "rules.yaml").read_text())
for release, expected in {"monitoring": [absent, rules], "monitoring-knative": [plain], "monitoring-fork": [plain], "monitoring-none": [plain]}.items():
    objects = [one for one in yaml.safe_load_all((work / f"chart-{release}.yaml").read_text()) if one]
    assert [one["spec"] for one in objects if one["kind"] == "PrometheusRule"] == expected, f"{release}: other rules"
    [dashboard] = [one for one in objects if one["kind"] == "ConfigMap"]
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1", f"{release}: Grafana's sidecar does not find the dashboard"
    assert json.loads(dashboard["data"]["wasmbox.json"]) == json.loads((files / "dashboard.json").read_text()), f"{release}: another dashboard"
    monitors = [one for one in objects if one["kind"] == "PodMonitor"]
    pods = [one["spec"]["template"] for one in objects if "template" in one.get("spec", {})]
    assert len(monitors) == len(pods), f"{release}: {len(monitors)} PodMonitors, {len(pods)} workloads"
    for monitor, pod in zip(monitors, pods):
        assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items(), f"{release}: the PodMonitor selects other pods"
        assert pod["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "wasmbox", f"{release}: the job has another name"
        [endpoint], [ports] = monitor["spec"]["podMetricsEndpoints"], [one["ports"] for one in pod["spec"]["containers"]]
        # Knative names the only port itself.
        assert endpoint["port"] in [port.get("name", "user-port") for port in ports], f"{release}: no port {endpoint['port']}"
        assert "prometheus.io/scrape" not in pod["metadata"]["annotations"], f"{release}: scraped twice"
PYTHON
grep -rqF 'UserPortName = "user-port"' "$serving_dir/pkg/apis/serving/v1" || fail "Knative names the port of a box otherwise than the PodMonitor"

part "the bases"
for base in kubernetes single-node knative knative-fork node container-only functions; do
    "$tools/kustomize" build "deployment/$base" >"$work/base-$base.yaml"
done

part "style"
"$tools/venv/bin/yamllint" --strict --config-file tests/deployment/yamllint.yaml \
    $(git ls-files --cached --others --exclude-standard 'deployment/*.yaml' 'runtimeclass/*.yaml' | grep -v chart/templates/)

part "schemas"
"$wasmbox" serve --help >"$work/settings"
# holds MANIFEST...: they are what the schemas have.
holds() {
    "$python" tests/deployment/validate.py --crds "${crds[@]}" --settings "$work/settings" -- "$@"
}
# The Trigger of the document, and the address that it gives for a box without Knative Serving.
sed -n '/^```yaml$/,/^```$/{/^```/d;p}' docs/events.md >"$work/trigger.yaml"
grep -q '^kind: Trigger$' "$work/trigger.yaml" || fail "docs/events.md has no Trigger"
sed 's,^      apiVersion: serving.knative.dev/v1$,      apiVersion: v1,; s/^      name: wasmbox-knative$/      name: wasmbox/' "$work/trigger.yaml" >"$work/trigger-plain.yaml"
! cmp -s "$work/trigger.yaml" "$work/trigger-plain.yaml" || fail "docs/events.md: the Trigger has another subscriber"
sed 's/^  subscriber:$/  subscribers:/' "$work/trigger.yaml" >"$work/wrong"
sed 's/^    uri:/    url:/' "$work/trigger.yaml" >"$work/wrong-subscriber"
! holds "$work"/wrong{,-subscriber} "$work"/base-*.yaml >"$work/refused" 2>&1 || fail "a Trigger without a subscriber is taken for one"
for said in "'subscriber' is a required property" "('subscribers' was unexpected)" "('url' was unexpected)"; do
    grep -qF "$said" "$work/refused" || fail "a wrong Trigger is refused without \"$said\": $(cat "$work/refused")"
done
for subscriber in knative:wasmbox-knative kubernetes:wasmbox; do
    "$python" - "$work/base-${subscriber%:*}.yaml" "${subscriber#*:}" <<'PYTHON'
import sys, yaml
services = [one["metadata"]["name"] for one in yaml.safe_load_all(open(sys.argv[1])) if one and one["kind"] == "Service"]
sys.exit(None if sys.argv[2] in services else f"docs/events.md: {sys.argv[1]} has no Service {sys.argv[2]}, but {services}")
PYTHON
done
holds "$work"/*.yaml deployment/functions/{pvc,single-node,nfs,cephfs,publish}.yaml deployment/container-only/pv.yaml \
    deployment/kubernetes/scaledobject.yaml deployment/schedules/cronjob.yaml
# Keys of Knative's ConfigMaps.
for patch in config-features config-features-container-only config-deployment; do
    config=$serving_dir/config/core/configmaps/$(sed 's/config-\([a-z]*\).*/\1/' <<<$patch).yaml
    sed -n 's/^  \([a-z][a-z.-]*\):.*/\1/p' "deployment/knative-config/$patch.yaml" >"$work/keys"
    [ -s "$work/keys" ] || fail "$patch has no keys"
    while read -r key; do
        grep -q "^ *$key:" "$config" || fail "$patch: Knative ${serving[0]} has no key $key"
    done <"$work/keys"
done
# The annotations of autoscaling.
sed -n 's/^ *\(autoscaling.knative.dev[^:]*\):.*/\1/p' deployment/knative*/ksvc*.yaml | sort -u | while read -r name; do
    grep -rqF "GroupName + \"/${name#*/}\"" "$serving_dir/pkg/apis/autoscaling" || fail "Knative has no annotation $name"
done

part "what the document names"
grep -ohE '\b(deployment|runtimeclass|examples|tests)/[A-Za-z0-9._/-]*[A-Za-z0-9]' docs/kubernetes.md | sort -u | grep -vx deployment/wasmbox | while read -r path; do
    [ -e "$path" ] || fail "docs/kubernetes.md: $path is not there"
done

part "the filter before the fork"
tests/deployment/filter.sh "$work/filter"

part "containerd's fragments"
for pair in 1.6:2 1.7:2 2.1:3; do
    version=${pair%:*} fragment=runtimeclass/containerd/config-v${pair#*:}.toml
    { [ "${pair#*:}" = 3 ] || echo 'version = 2'; cat "$fragment"; } >"$work/config.toml"
    "target/tools/containerd/$version/containerd" --config "$work/config.toml" config dump 2>/dev/null >"$work/dump"
    sed -n '/runtimes.wasmbox\]/,/^ *ShimCgroup/p' "$work/dump" | tr "'" '"' >"$work/handler"
    for line in 'runtime_type = "io.containerd.wasmbox.v1"' 'pod_annotations = ["wasmbox.dev/*"]'; do
        grep -qF "$line" "$work/handler" || fail "containerd $version: $fragment: no $line"
    done
    ! grep -qF SystemdCgroup "$work/handler" || fail "containerd $version: $fragment: options, with which there are no user namespaces"
done

part "the image"
"$tools/venv/bin/hadolint" Dockerfile
if ! command -v buildah >/dev/null; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "buildah is missing: install it"
    apt-cache show buildah >/dev/null 2>&1 || apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends buildah >/dev/null || fail "buildah cannot be installed"
fi
build() {
    buildah --storage-driver vfs --root "$work/storage" --runroot "$work/storage-run" "$@"
}
# Overlays cannot be had everywhere; nothing is run in the final stage, and nothing is pulled.
build build --quiet --isolation chroot --format docker --build-arg BINARIES=prebuilt --tag wasmbox:test . >/dev/null
build inspect --type image wasmbox:test >"$work/image.json"
"$python" - "$work/image.json" <<'PYTHON'
import json, sys
config = json.load(open(sys.argv[1]))["Docker"]["config"]
expected = {"User": "65532:65532", "Entrypoint": ["/usr/local/bin/wasmbox"], "Cmd": ["serve"], "WorkingDir": "/functions"}
wrong = {key: config.get(key) for key, value in expected.items() if config.get(key) != value}
if config.get("Healthcheck", {}).get("Test") != ["CMD", "/usr/local/bin/wasmbox", "status"]:
    wrong["Healthcheck"] = config.get("Healthcheck")
sys.exit(f"the image's configuration: {wrong}" if wrong else 0)
PYTHON
build push --quiet --format docker wasmbox:test "docker-archive:$work/image.tar:docker.io/library/wasmbox:test"
cargo test --release --workspace --test image
echo "deployment/, runtimeclass/ and the Dockerfile are good."
