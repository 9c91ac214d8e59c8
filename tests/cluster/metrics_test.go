package cluster

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// metrics starts metrics-server on the node, and has the API server ask it.
func (c *cluster) metrics(t *testing.T) {
	if c.hasMetrics {
		return
	}
	c.hasMetrics = true
	config := c.pki.client(t, "metrics-server", "metrics-server", "system:masters")
	c.run(t, "metrics-server", get("https://127.0.0.1:4443/readyz"), "metrics-server", "--kubeconfig="+config,
		"--authentication-kubeconfig="+config, "--authorization-kubeconfig="+config, "--secure-port=4443", "--cert-dir=/run/metrics-server",
		"--kubelet-certificate-authority="+c.pki.path("ca.crt"), "--kubelet-preferred-address-types=InternalIP", "--metric-resolution=10s",
		"--kubelet-request-timeout=5s")
	apply(t, onNode("metrics-server", "", "TCP", 443, 4443)+`
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec:
  group: metrics.k8s.io
  version: v1beta1
  service: {name: metrics-server, namespace: kube-system}
  insecureSkipTLSVerify: true
  groupPriorityMinimum: 100
  versionPriority: 100
`)
	kubectl(t, "wait", "--for=condition=Available", "apiservice/v1beta1.metrics.k8s.io", "--timeout=120s")
}

// onNode is a Service of the namespace kube-system for what runs on the node, without being in a pod.
func onNode(name, address, protocol string, port, target int) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: kube-system}
spec: {clusterIP: %[2]q, ports: [{name: main, protocol: %[3]s, port: %[4]d, targetPort: %[5]d}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s, namespace: kube-system, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{name: main, port: %[5]d, protocol: %[3]s}]
endpoints: [{addresses: [%[6]s], conditions: {ready: true}}]
---
`, name, address, protocol, port, target, nodeAddress)
}

// autoscaling makes pods of load, and takes them away after it; no call is lost.
func (c *cluster) autoscaling(t *testing.T) {
	c.metrics(t)
	// The document's 1.5 cores are more than a machine of two has beside a cluster.
	kubectl(t, "patch", "hpa", "wasmbox", "--type=json", "--patch",
		`[{"op": "replace", "path": "/spec/metrics/0/resource/target/averageValue", "value": "200m"}, {"op": "replace", "path": "/spec/maxReplicas", "value": 3}]`)
	began := time.Now()
	busy := client{path: "/busy", expected: "busy\n", headers: map[string]string{"Memory-Request": "4"}}
	l := begin(t, c.service(t), busy, busy, client{path: "/hello", expected: "hello\n", kept: true})
	replicas := func(want func(string) bool) func() error {
		return func() error {
			have := kubectl(t, "get", "deployment", "wasmbox", "--output=jsonpath={.status.readyReplicas}")
			if !want(have) {
				said, _ := exec.Command("kubectl", "get", "hpa", "wasmbox").Output()
				return fmt.Errorf("%s are ready: %s", have, said)
			}
			return nil
		}
	}
	eventually(t, "three pods", replicas(func(have string) bool { return have == "3" }))
	t.Logf("three pods after %.0f s: %s", time.Since(began).Seconds(), kubectl(t, "get", "hpa", "wasmbox"))
	l.end(t)
	l = begin(t, c.service(t), client{path: "/hello", expected: "hello\n", kept: true}, client{path: "/hello", expected: "hello\n"})
	eventually(t, "one pod", replicas(func(have string) bool { return strings.TrimSpace(have) == "1" }))
	l.end(t)
	t.Logf("one pod after %.0f s", time.Since(began).Seconds())
}
