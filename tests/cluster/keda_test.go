package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// keda has KEDA scale the box by what its requests ask for, with the document's commands: Prometheus scrapes the boxes, KEDA's operator asks it,
// and the HorizontalPodAutoscaler that KEDA made asks KEDA's adapter, a part of the API server.
func (c *cluster) keda(t *testing.T) {
	c.metrics(t)
	c.dns(t)
	defer c.startPrometheus(t)()
	defer c.installKEDA(t)()

	// The chart, instead of what the quick start applied.
	quickStart := commands(t, document, "Quick start", "kubectl apply -k deployment/single-node")
	commands(t, document, "Removing it", "kubectl delete -k deployment/single-node").run(t)
	defer func() {
		quickStart.run(t, "kubectl apply -f", "kubectl wait", "kubectl cp", "kubectl port-forward", "curl")
		c.rolledOut(t)
	}()
	c.installChart(t)
	defer c.uninstallChart(t)
	commands(t, document, "Operating it", "keda.enabled=true").run(t)
	c.rolledOut(t)
	const scaler = "hpa/keda-hpa-wasmbox"
	replicas := func(what string, want func(int) bool) {
		t.Helper()
		eventually(t, what, func() error {
			var have int
			_, _ = fmt.Sscan(kubectl(t, "get", "deployment", "wasmbox", "--output=jsonpath={.status.readyReplicas}"), &have)
			if !want(have) {
				return fmt.Errorf("%d are ready: %s", have, kubectl(t, "get", scaler))
			}
			return nil
		})
	}
	eventually(t, "figures of KEDA's adapter", func() error {
		conditions := kubectl(t, "get", scaler, `--output=jsonpath={.status.conditions[?(@.type=="ScalingActive")].status} {.status.currentMetrics[*].type}`)
		if !strings.HasPrefix(conditions, "True ") || !strings.Contains(conditions, "External") {
			return fmt.Errorf("%s: %s", conditions, kubectl(t, "describe", scaler))
		}
		return nil
	})
	replicas("one pod without load", func(have int) bool { return have == 1 })

	// Four of them run in 256 MiB, and four wait: 512 MiB are requested. They sleep, so that it is not the CPU that is scaled on.
	began := time.Now()
	var clients []client
	for number := range 8 {
		clients = append(clients, client{path: "/slow", expected: "slow\n", kept: number%2 == 0, headers: map[string]string{"Memory-Request": "64"}})
	}
	l := begin(t, c.service(t), clients...)
	replicas("two pods or more", func(have int) bool { return have >= 2 })
	t.Logf("more than one pod after %.0f s: %s", time.Since(began).Seconds(), kubectl(t, "get", scaler))
	l.end(t)
	reasons := kubectl(t, "get", "events", "--field-selector=reason=SuccessfulRescale,involvedObject.name=keda-hpa-wasmbox", "--output=jsonpath={.items[*].message}")
	if !strings.Contains(reasons, "external metric s0-prometheus") {
		t.Errorf("what it scaled on: %q", reasons)
	}
	small := map[string]string{"Memory-Request": "4"}
	l = begin(t, c.service(t), client{path: "/hello", expected: "hello\n", kept: true, headers: small}, client{path: "/hello", expected: "hello\n", headers: small})
	replicas("one pod after the load", func(have int) bool { return have == 1 })
	l.end(t)
	t.Logf("one pod after %.0f s", time.Since(began).Seconds())
}

// installKEDA applies KEDA's own manifests, out of its module, with images of the programs that were built of it. The result takes them away.
func (c *cluster) installKEDA(t *testing.T) func() {
	t.Helper()
	began := time.Now()
	const directory = "target/tools/cluster/keda"
	for image, program := range map[string]string{
		"keda": "keda", "keda-metrics-apiserver": "keda-adapter", "keda-admission-webhooks": "keda-admission-webhooks",
	} {
		content := t.TempDir()
		copyFile(t, filepath.Join(directory, program), filepath.Join(content, program))
		importImage(t, "ghcr.io/kedacore/"+image+":main", content, "/"+program)
	}
	manifest := kubectl(t, "kustomize", directory+"/config/default")
	file := c.write(t, "keda.yaml", strings.ReplaceAll(manifest, "imagePullPolicy: Always", "imagePullPolicy: IfNotPresent"))
	// Too large for an annotation.
	kubectl(t, "apply", "--server-side", "--filename="+file)
	// The operator makes the certificates of all three. It starts anew with them, and the others before they are there.
	for _, name := range []string{"keda-operator", "keda-metrics-apiserver", "keda-admission"} {
		kubectl(t, "rollout", "status", "--namespace=keda", "deployment/"+name, "--timeout=300s")
	}
	kubectl(t, "wait", "--for=condition=Available", "apiservice/v1beta1.external.metrics.k8s.io", "--timeout=180s")
	t.Logf("KEDA is up after %.0f s", time.Since(began).Seconds())
	return func() {
		eventually(t, "the end of what KEDA scales", func() error {
			left := kubectl(t, "get", "scaledobjects,hpa", "--output=name")
			if strings.Contains(left, "keda") {
				return fmt.Errorf("%s", left)
			}
			return nil
		})
		kubectl(t, "delete", "--ignore-not-found", "--wait", "--timeout=180s", "--filename="+file)
		if left := kubectl(t, "api-resources", "--api-group=keda.sh", "--output=name"); left != "" {
			t.Errorf("KEDA's kinds are left: %s", left)
		}
	}
}

// startPrometheus runs Prometheus where the chart expects it. It finds pods by their annotations, as its project's chart has it. The result takes
// it away.
func (c *cluster) startPrometheus(t *testing.T) func() {
	t.Helper()
	content := t.TempDir()
	copyFile(t, "target/tools/cluster/prometheus/prometheus", filepath.Join(content, "prometheus"))
	importImage(t, "quay.io/prometheus/prometheus:main", content, "/prometheus")
	manifest, err := os.ReadFile("tests/cluster/prometheus.yaml")
	check(t, err)
	apply(t, string(manifest))
	kubectl(t, "rollout", "status", "--namespace=monitoring", "deployment/prometheus", "--timeout=180s")
	return func() {
		kubectl(t, "delete", "--ignore-not-found", "--wait", "--timeout=180s", "--filename=tests/cluster/prometheus.yaml")
	}
}
