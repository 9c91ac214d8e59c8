// Package cluster tests the product on a real Kubernetes of one node, by the commands of its documents. The node is what tests/cluster/run.sh
// makes: namespaces in which this process starts etcd, the control plane, containerd, kubelet and kube-proxy, and ends with all of them.
package cluster

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	nodeAddress = "10.200.0.2"
	// patience is what anything gets on a machine that is busy.
	patience = 3 * time.Minute
)

// cluster is one node with all that Kubernetes consists of.
type cluster struct {
	// whole is the test that all others are part of.
	whole *testing.T
	// directory has certificates and configurations.
	directory  string
	pki        *authority
	containerd *daemon
	kubelet    *daemon
	hasMetrics bool
	hasDNS     bool
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start brings the cluster up, until its node is ready.
func start(t *testing.T) *cluster {
	if os.Getenv("WASMBOX_CLUSTER_NODE") == "" {
		t.Fatal("this changes the machine that it runs on: run `make cluster-test`, which makes a node of namespaces")
	}
	began := time.Now()
	c := &cluster{whole: t, directory: "/etc/kubernetes"}
	c.pki = newAuthority(t, c.directory)
	c.pki.trust(t)
	c.pki.server(t, "apiserver", []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"},
		net.ParseIP(nodeAddress), net.ParseIP("10.96.0.1"), net.IPv4(127, 0, 0, 1))
	c.pki.server(t, "kubelet", []string{"node"}, net.ParseIP(nodeAddress))
	c.pki.server(t, "accounts", nil)
	check(t, os.Setenv("KUBECONFIG", c.pki.client(t, "admin", "admin", "system:masters")))

	c.run(t, "etcd", get("http://127.0.0.1:2379/health"), "etcd", "--data-dir=/run/etcd", "--log-level=warn")
	c.run(t, "kube-apiserver", c.isReady, "kube-apiserver", c.apiserver(t)...)
	config := c.pki.client(t, "controller-manager", "system:kube-controller-manager")
	c.run(t, "kube-controller-manager", get("https://127.0.0.1:10257/healthz"), "kube-controller-manager",
		"--kubeconfig="+config, "--authentication-kubeconfig="+config, "--authorization-kubeconfig="+config,
		"--root-ca-file="+c.pki.path("ca.crt"), "--service-account-private-key-file="+c.pki.path("accounts.key"),
		"--cluster-signing-cert-file="+c.pki.path("ca.crt"), "--cluster-signing-key-file="+c.pki.path("ca.key"),
		"--use-service-account-credentials", "--leader-elect=false",
		// Five minutes by default.
		"--horizontal-pod-autoscaler-downscale-stabilization=20s", "--horizontal-pod-autoscaler-sync-period=5s")
	config = c.pki.client(t, "scheduler", "system:kube-scheduler")
	c.run(t, "kube-scheduler", get("https://127.0.0.1:10259/healthz"), "kube-scheduler", "--kubeconfig="+config,
		"--authentication-kubeconfig="+config, "--authorization-kubeconfig="+config, "--leader-elect=false")

	c.configureContainerd(t)
	c.containerd = c.run(t, "containerd", func() error { return quiet("ctr", "version") }, "containerd")
	c.importImages(t)
	check(t, os.WriteFile(c.file("kubelet.yaml"), fmt.Appendf(nil, kubeletConfiguration, c.directory), 0o600))
	c.kubelet = c.run(t, "kubelet", get("http://127.0.0.1:10248/healthz"), "kubelet", "--config="+c.file("kubelet.yaml"),
		"--kubeconfig="+c.pki.client(t, "node", "system:node:node", "system:nodes"), "--node-ip="+nodeAddress, "--hostname-override=node")
	c.run(t, "kube-proxy", get("http://127.0.0.1:10256/healthz"), "kube-proxy",
		"--kubeconfig="+c.pki.client(t, "proxy", "system:kube-proxy"), "--proxy-mode=iptables", "--hostname-override=node",
		"--cluster-cidr=10.244.0.0/16", "--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0")
	services(t, c.containerd, c.kubelet)
	kubectl(t, "wait", "--for=create", "node/node", "--timeout=180s")
	kubectl(t, "wait", "--for=condition=Ready", "node/node", "--timeout=180s")
	c.storage(t)
	t.Logf("the cluster is up after %.1f s", time.Since(began).Seconds())
	return c
}

func (c *cluster) file(name string) string { return filepath.Join(c.directory, name) }

// run starts a service of the node, which ends with the tests.
func (c *cluster) run(t *testing.T, name string, answers func() error, command string, arguments ...string) *daemon {
	t.Helper()
	d := &daemon{name: name, command: append([]string{"/usr/local/bin/" + command}, arguments...), answers: answers}
	check(t, d.start())
	c.whole.Cleanup(func() {
		if c.whole.Failed() {
			c.whole.Logf("the log of %s ends so:\n%s", name, d.tail())
		}
		check(c.whole, d.stop(syscall.SIGKILL))
	})
	return d
}

func (c *cluster) apiserver(t *testing.T) []string {
	c.pki.client(t, "apiserver-to-kubelet", "apiserver", "system:masters")
	c.pki.client(t, "aggregator", "aggregator")
	return []string{
		"--etcd-servers=http://127.0.0.1:2379", "--advertise-address=" + nodeAddress, "--service-cluster-ip-range=10.96.0.0/16",
		"--authorization-mode=Node,RBAC", "--kubelet-preferred-address-types=InternalIP", "--enable-admission-plugins=NodeRestriction", "--allow-privileged",
		"--client-ca-file=" + c.pki.path("ca.crt"),
		"--tls-cert-file=" + c.pki.path("apiserver.crt"), "--tls-private-key-file=" + c.pki.path("apiserver.key"),
		"--kubelet-certificate-authority=" + c.pki.path("ca.crt"),
		"--kubelet-client-certificate=" + c.pki.path("apiserver-to-kubelet.crt"), "--kubelet-client-key=" + c.pki.path("apiserver-to-kubelet.key"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + c.pki.path("accounts.crt"), "--service-account-signing-key-file=" + c.pki.path("accounts.key"),
		"--requestheader-client-ca-file=" + c.pki.path("ca.crt"), "--requestheader-allowed-names=aggregator",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + c.pki.path("aggregator.crt"), "--proxy-client-key-file=" + c.pki.path("aggregator.key"),
	}
}

func (c *cluster) isReady() error { return quiet("kubectl", "get", "--raw=/readyz") }

// configureContainerd writes what `containerd config default` prints, with what this machine needs.
func (c *cluster) configureContainerd(t *testing.T) {
	text := output(t, "containerd", "config", "default")
	// A machine of tests may not let its root lower a process' score.
	changed := strings.Replace(text, "restrict_oom_score_adj = false", "restrict_oom_score_adj = true", 1)
	if changed == text {
		t.Fatal("containerd's default configuration has no restrict_oom_score_adj")
	}
	check(t, os.WriteFile(containerdConfig, []byte(changed), 0o644))
	network := `{"cniVersion": "1.0.0", "name": "pods", "plugins": [
		{"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.244.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}},
		{"type": "portmap", "capabilities": {"portMappings": true}}]}`
	check(t, os.WriteFile("/etc/cni/net.d/10-pods.conflist", []byte(network), 0o644))
}

const containerdConfig = "/etc/containerd/config.toml"

const kubeletConfiguration = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %[1]s/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: %[1]s/kubelet.crt
tlsPrivateKeyFile: %[1]s/kubelet.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
# A machine of tests may not let its root lower it.
oomScoreAdj: 0
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: /etc/resolv.conf
# Nothing can be pulled, so no image may be deleted, however full the machine's disk is.
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: "1%%", imagefs.available: "1%%"}
syncFrequency: 10s
`

// storage makes a default storage class, and a volume on the node that a claim can have.
func (c *cluster) storage(t *testing.T) {
	check(t, os.MkdirAll("/var/lib/volumes/functions", 0o755))
	apply(t, `
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: standard
  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: functions}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: standard
  local: {path: /var/lib/volumes/functions}
  nodeAffinity:
    required:
      nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node]}]}]
`)
}

// get asks for 200; certificates are made by each service for itself.
func get(url string) func() error {
	client := &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true},
	}
	return func() error {
		answer, err := client.Get(url)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", url, answer.Status)
		}
		return nil
	}
}

// quiet runs a command for its exit code.
func quiet(name string, arguments ...string) error {
	said, err := exec.Command(name, arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, said)
	}
	return nil
}

// output runs a command that is to succeed, and gives what it wrote.
func output(t *testing.T, name string, arguments ...string) string {
	t.Helper()
	command := exec.Command(name, arguments...)
	var problem strings.Builder
	command.Stderr = &problem
	text, err := command.Output()
	if err != nil {
		t.Fatalf("%s %s: %v: %s%s", name, strings.Join(arguments, " "), err, text, problem.String())
	}
	return string(text)
}

func kubectl(t *testing.T, arguments ...string) string {
	t.Helper()
	return output(t, "kubectl", arguments...)
}

func apply(t *testing.T, manifest string) {
	t.Helper()
	command := exec.Command("kubectl", "apply", "--filename=-")
	command.Stdin = strings.NewReader(manifest)
	if said, err := command.CombinedOutput(); err != nil {
		t.Fatalf("kubectl apply: %v: %s", err, said)
	}
}

// eventually waits until it holds.
func eventually(t *testing.T, what string, holds func() error) {
	t.Helper()
	var last error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if last = holds(); last == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, last)
}
