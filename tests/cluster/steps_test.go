package cluster

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const document = "docs/kubernetes.md"

// TestCluster is all of it, on one cluster. The quick start comes always; `-test.run TestCluster/NAME` chooses among what follows.
func TestCluster(t *testing.T) {
	c := start(t)
	before := c.nodeFiles(t)
	c.quickStart(t)
	// Last, since nothing is left after it.
	defer t.Run("removal", func(t *testing.T) { c.removal(t, before) })
	t.Run("kubectl", c.kubectl)
	t.Run("push", c.push)
	t.Run("mixed_pods", c.mixedPods)
	t.Run("rolling_update", c.rollingUpdate)
	t.Run("restarts", c.restarts)
	t.Run("node_upgrade", c.nodeUpgrade)
	t.Run("autoscaling", c.autoscaling)
	t.Run("keda", c.keda)
	t.Run("drain", c.drain)
	t.Run("knative", c.knative)
	if os.Getenv("WASMBOX_CLUSTER_SHELL") != "" {
		shell := exec.Command("bash", "-i")
		shell.Stdin, shell.Stdout, shell.Stderr = os.Stdin, os.Stdout, os.Stderr
		_ = shell.Run()
	}
}

// quickStart is the document's, to the letter, in a namespace that refuses pods which are not "restricted".
func (c *cluster) quickStart(t *testing.T) {
	began := time.Now()
	// Built before.
	commands(t, document, "Quick start", "buildah push").run(t, "make static")
	output(t, "ctr", "--namespace=k8s.io", "images", "import", "wasmbox.tar")
	said := commands(t, document, "Quick start", "deployment/node").run(t)
	if nodes := said[len(said)-1]; !strings.Contains(nodes, "node ") {
		t.Fatalf("the node has no label: %s", nodes)
	}
	kubectl(t, "label", "namespace", "default", "pod-security.kubernetes.io/enforce=restricted")
	said = commands(t, document, "Quick start", "port-forward").run(t)
	if answer := said[len(said)-1]; !strings.HasSuffix(answer, "hello\n") {
		t.Fatalf("the function answered %q", answer)
	}
	t.Logf("the quick start took %.1f s", time.Since(began).Seconds())
	functions, err := filepath.Glob("tests/cluster/functions/*.wat")
	check(t, err)
	for _, function := range append(functions, "examples/functions/echo.wat") {
		kubectl(t, "cp", function, "wasmbox-publish:/functions/"+filepath.Base(function))
	}
	c.rolledOut(t)
	for _, one := range all() {
		l := begin(t, c.service(t), one)
		time.Sleep(100 * time.Millisecond)
		l.end(t)
	}
	installer := kubectl(t, "get", "pods", "--namespace=wasmbox-system", "--output=jsonpath={.items[*].status.containerStatuses[*].restartCount}")
	if installer != "0" {
		t.Errorf("the installer ended and was started anew: %s: %s", installer, kubectl(t, "describe", "pods", "--namespace=wasmbox-system"))
	}
}

// rolledOut waits until the Deployment is what it is to be, with none of its former pods, and kube-proxy, which looks once a second, knows
// where it is.
func (c *cluster) rolledOut(t *testing.T) {
	t.Helper()
	kubectl(t, "rollout", "status", "deployment/wasmbox", "--timeout=180s")
	eventually(t, "the former pods' end", func() error {
		replicas := kubectl(t, "get", "deployment", "wasmbox", "--output=jsonpath={.status.replicas}")
		pods := strings.Fields(kubectl(t, "get", "pods", "--selector=app.kubernetes.io/instance=wasmbox", "--output=name"))
		if fmt.Sprint(len(pods)) != replicas {
			return fmt.Errorf("%s of %v", replicas, pods)
		}
		return nil
	})
	address := c.service(t)
	eventually(t, "the Service", func() error {
		connection, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return err
		}
		return connection.Close()
	})
}

// service is where the Service is.
func (c *cluster) service(t *testing.T) string {
	t.Helper()
	return kubectl(t, "get", "service", "wasmbox", "--output=jsonpath={.spec.clusterIP}:{.spec.ports[0].port}")
}

// kubectl has what operators do with a pod.
func (c *cluster) kubectl(t *testing.T) {
	says := func(said string, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if !strings.Contains(said, text) {
				t.Errorf("no %q: %s", text, said)
			}
		}
	}
	says(kubectl(t, "logs", "deployment/wasmbox"), `"level"`)
	says(kubectl(t, "exec", "deployment/wasmbox", "--", "wasmbox", "status"), "ready")
	says(kubectl(t, "exec", "deployment/wasmbox", "--", "wasmbox", "doctor"), "cgroup")
	pod := kubectl(t, "get", "pods", "--selector=app.kubernetes.io/instance=wasmbox", "--output=jsonpath={.items[0].metadata.name}")
	busybox := named(t, "deployment/functions/publish.yaml", "docker.io/library/busybox")
	kubectl(t, "debug", pod, "--image="+busybox, "--container=look", "--profile=restricted", "--custom="+c.write(t, "custom.json",
		`{"securityContext": {"runAsUser": 65532}}`), "--", "wget", "-q", "-O", "-", "http://localhost:8095/hello")
	eventually(t, "the debugging container's output", func() error {
		said, err := exec.Command("kubectl", "logs", pod, "--container=look").CombinedOutput()
		if err != nil || string(said) != "hello\n" {
			return fmt.Errorf("%q, %w", said, err)
		}
		return nil
	})
	c.metrics(t)
	eventually(t, "kubectl top", func() error {
		said, err := exec.Command("kubectl", "top", "pod", "--containers", pod).CombinedOutput()
		if err == nil && !strings.Contains(string(said), "wasmbox ") {
			err = fmt.Errorf("no box: %s", said)
		}
		if err != nil {
			return fmt.Errorf("%w: %s", err, said)
		}
		t.Logf("%s", said)
		return nil
	})
}

func (c *cluster) write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	check(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// appendTo adds text to the end of a file that is there.
func appendTo(t *testing.T, name, text string) {
	t.Helper()
	file, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	check(t, err)
	_, err = file.WriteString(text)
	check(t, err)
	check(t, file.Close())
}

// mixedPods has boxes beside ordinary containers, under one shim, and beside the same pod with runc.
func (c *cluster) mixedPods(t *testing.T) {
	busybox := named(t, "deployment/functions/publish.yaml", "docker.io/library/busybox")
	const security = `{allowPrivilegeEscalation: false, runAsNonRoot: true, runAsUser: 65532, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}`
	pod := func(name, class, box string) string {
		return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, annotations: {wasmbox.dev/container: box}}
spec:
  %[2]s
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  initContainers:
    - {name: first, image: "%[4]s", command: [sh, -c, "echo first >/shared/first"], volumeMounts: [{name: shared, mountPath: /shared}], securityContext: %[5]s}
  containers:
    - %[3]s
    - {name: beside, image: "%[4]s", command: [sh, -c, "cat /shared/first; sleep 1000"], volumeMounts: [{name: shared, mountPath: /shared}], securityContext: %[5]s}
  volumes: [{name: shared, emptyDir: {}}]
---
`, name, class, box, busybox, security)
	}
	box := `{name: box, image: "wasmbox:0.1.0", args: [serve], resources: {limits: {cpu: 500m, memory: 128Mi}}, securityContext: ` + security + `}`
	plain := fmt.Sprintf(`{name: plain, image: "%s", command: [sleep, "1000"], securityContext: %s}`, busybox, security)
	apply(t, pod("mixed-box", "runtimeClassName: wasmbox", box)+pod("mixed-plain", "runtimeClassName: wasmbox", plain)+pod("mixed-runc", "", plain))
	defer kubectl(t, "delete", "pod", "mixed-box", "mixed-plain", "mixed-runc", "--wait")
	for _, name := range []string{"mixed-box", "mixed-plain", "mixed-runc"} {
		kubectl(t, "wait", "--for=condition=Ready", "pod/"+name, "--timeout=180s")
		if said := kubectl(t, "logs", name, "--container=beside"); said != "first\n" {
			t.Errorf("%s: the sidecar wrote %q", name, said)
		}
		if said := kubectl(t, "exec", name, "--container=beside", "--", "id", "-u"); said != "65532\n" {
			t.Errorf("%s: the sidecar's user is %q", name, said)
		}
	}
	// They share the network.
	said := kubectl(t, "exec", "mixed-box", "--container=beside", "--", "wget", "-q", "-O", "-", "http://localhost:8095/-/ready")
	t.Logf("the box says to its sidecar: %s", said)
}

// rollingUpdate replaces the pods again and again, and nobody notices.
func (c *cluster) rollingUpdate(t *testing.T) {
	kubectl(t, "patch", "hpa", "wasmbox", "--patch", `{"spec": {"minReplicas": 2}}`)
	kubectl(t, "wait", "--for=jsonpath={.status.availableReplicas}=2", "deployment/wasmbox", "--timeout=120s")
	began := time.Now()
	l := begin(t, c.service(t), append(all(), all()...)...)
	update := commands(t, document, "Upgrading", "kubectl rollout restart deployment/wasmbox")
	const rollouts = 20
	for range rollouts {
		update.run(t)
	}
	answered := l.end(t)
	t.Logf("%d rollouts in %.0f s, %d calls", rollouts, time.Since(began).Seconds(), answered)
	kubectl(t, "patch", "hpa", "wasmbox", "--patch", `{"spec": {"minReplicas": 1}}`)
	// The autoscaler needs metrics to take one away.
	kubectl(t, "scale", "deployment", "wasmbox", "--replicas=1")
	kubectl(t, "wait", "--for=jsonpath={.status.replicas}=1", "deployment/wasmbox", "--timeout=120s")
}

// containers are the pods' containers: their names, what they are to containerd, and how often they were started anew.
func (c *cluster) containers(t *testing.T, namespace string) string {
	t.Helper()
	var pods struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct {
				ContainerStatuses []struct {
					Name, ContainerID string
					RestartCount      int
				}
			}
		}
	}
	check(t, json.Unmarshal([]byte(kubectl(t, "get", "pods", "--namespace="+namespace, "--output=json")), &pods))
	var lines []string
	for _, pod := range pods.Items {
		for _, container := range pod.Status.ContainerStatuses {
			lines = append(lines, fmt.Sprintf("%s/%s %s %d", pod.Metadata.Name, container.Name, container.ContainerID, container.RestartCount))
		}
	}
	return strings.Join(lines, "\n")
}

// restarts ends containerd and kubelet in each way under load.
func (c *cluster) restarts(t *testing.T) {
	c.rolledOut(t)
	before := c.containers(t, "default") + c.containers(t, "wasmbox-system")
	for _, d := range []*daemon{c.containerd, c.kubelet} {
		for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			l := begin(t, c.service(t), all()...)
			time.Sleep(time.Second)
			check(t, d.restart(signal))
			kubectl(t, "wait", "--for=condition=Ready", "node/node", "--timeout=180s")
			// kubelet looks at all pods once a second, at probes every two.
			time.Sleep(6 * time.Second)
			t.Logf("%s, %v", d.name, signal)
			l.end(t)
			if after := c.containers(t, "default") + c.containers(t, "wasmbox-system"); after != before {
				t.Errorf("%s, %v: containers were\n%s\nand are\n%s", d.name, signal, before, after)
			}
			if said := kubectl(t, "exec", "deployment/wasmbox", "--", "wasmbox", "status"); !strings.Contains(said, "ready") {
				t.Errorf("status: %s", said)
			}
		}
	}
}

// nodeUpgrade rolls out the installer with an image of another name, by the document's commands, under load.
func (c *cluster) nodeUpgrade(t *testing.T) {
	before := c.containers(t, "default")
	output(t, "ctr", "--namespace=k8s.io", "images", "tag", "docker.io/library/wasmbox:0.1.0", "docker.io/library/wasmbox:0.1.1")
	appendTo(t, "deployment/node/kustomization.yaml", "images:\n  - name: wasmbox\n    newTag: 0.1.1\n")
	l := begin(t, c.service(t), all()...)
	commands(t, document, "Upgrading", "kubectl apply -k deployment/node").run(t)
	l.end(t)
	image := kubectl(t, "get", "pods", "--namespace=wasmbox-system", "--output=jsonpath={.items[0].spec.containers[0].image}")
	if image != "wasmbox:0.1.1" {
		t.Errorf("the installer is of %s", image)
	}
	if after := c.containers(t, "default"); after != before {
		t.Errorf("containers were\n%s\nand are\n%s", before, after)
	}
}

// drain takes the pods off the node, as before an upgrade of it.
func (c *cluster) drain(t *testing.T) {
	kubectl(t, "delete", "pod", "wasmbox-publish", "--ignore-not-found")
	l := begin(t, c.service(t), all()...)
	time.Sleep(time.Second)
	line := inline(t, document, "kubectl drain NODE")
	block{document, []string{strings.ReplaceAll(line, "NODE", "node")}}.run(t)
	time.Sleep(time.Second)
	l.stop()
	l.clients.Wait()
	// There is no other node. So who connects later finds nobody; who had connected was answered.
	for _, failure := range l.failures {
		if !strings.Contains(failure, "dial tcp") {
			t.Errorf("while the node was drained: %s", failure)
		}
	}
	t.Logf("%d calls were answered", l.answered.Load())
	kubectl(t, "uncordon", "node")
	c.rolledOut(t)
	l = begin(t, c.service(t), all()...)
	time.Sleep(2 * time.Second)
	l.end(t)
}
