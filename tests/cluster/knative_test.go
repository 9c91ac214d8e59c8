package cluster

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// What tests/cluster/install.sh builds.
const knativeVersion = "v0.50.0"

// knative is Knative Serving without an ingress: requests go to the activator, as the ingress of one would send them.
func (c *cluster) knative(t *testing.T) {
	c.dns(t)
	c.installKnative(t)
	commands(t, document, "Stock", "deployment/knative-config").run(t, "kubectl apply")
	// The document's smaller one, which mounts the quick start's volume.
	commands(t, document, "Stock", "helm template wasmbox-knative").run(t)
	// The same with runc: the image's own binary.
	output(t, "bash", "-c", `helm template wasmbox-runc deployment/chart --set workload=knative,functions.create=false,runtimeClass.name= \
		--set resources.requests.cpu=100m,resources.limits.cpu=2,resources.requests.memory=256Mi,resources.limits.memory=256Mi | kubectl apply -f -`)
	services := []string{"wasmbox-knative", "wasmbox-runc"}
	defer kubectl(t, append([]string{"delete", "ksvc", "--wait"}, services...)...)
	for _, name := range services {
		c.ready(t, name)
	}
	t.Run("cold_start", func(t *testing.T) { c.coldStarts(t, services) })
	t.Run("burst_from_zero", func(t *testing.T) { c.burst(t, services[0]) })
	t.Run("revisions", func(t *testing.T) { c.revisions(t, services[0]) })
}

// installKnative applies its own manifests, out of its modules, with images of the binaries that were built of them.
func (c *cluster) installKnative(t *testing.T) {
	began := time.Now()
	for _, name := range []string{"activator", "autoscaler", "controller", "webhook", "queue"} {
		directory := t.TempDir()
		copyFile(t, "target/tools/cluster/knative/"+name, filepath.Join(directory, name))
		importImage(t, "knative.dev/"+name+":"+knativeVersion, directory, "/"+name)
	}
	// The kinds first, and then what is of them.
	applyKnative(t, "core/100-namespace.yaml", "core/300-resources/*.yaml", "networking/*.yaml", "caching/*.yaml")
	applyKnative(t, "core/200-*.yaml", "core/200-roles/*.yaml", "core/300-*.yaml", "core/configmaps/*.yaml", "core/999-cache.yaml",
		"core/webhooks/*.yaml", "core/deployments/*.yaml")
	for _, name := range []string{"webhook", "controller", "autoscaler", "activator"} {
		kubectl(t, "rollout", "status", "--namespace=knative-serving", "deployment/"+name, "--timeout=180s")
	}
	// No registry is there to ask for an image's digest.
	eventually(t, "Knative's configuration", func() error {
		return quiet("kubectl", "patch", "configmap", "config-deployment", "--namespace=knative-serving", "--type=merge", "--patch",
			`{"data": {"registries-skipping-tag-resolving": "index.docker.io"}}`)
	})
	// As short as can be, so that there is time for many.
	kubectl(t, "patch", "configmap", "config-autoscaler", "--namespace=knative-serving", "--type=merge", "--patch",
		`{"data": {"scale-to-zero-grace-period": "6s", "stable-window": "6s"}}`)
	t.Logf("Knative is up after %.0f s", time.Since(began).Seconds())
}

// applyKnative applies files of Knative's.
func applyKnative(t *testing.T, patterns ...string) {
	t.Helper()
	built := regexp.MustCompile(`ko://knative\.dev/serving/cmd/(\w+)`)
	var text strings.Builder
	for _, pattern := range patterns {
		files, err := filepath.Glob(filepath.Join("target/tools/cluster/knative/config", pattern))
		check(t, err)
		if len(files) == 0 {
			t.Fatalf("Knative has no %s", pattern)
		}
		for _, file := range files {
			// They ask for more of a node than a machine of tests has.
			if strings.HasSuffix(file, "-hpa.yaml") {
				continue
			}
			content, err := os.ReadFile(file)
			check(t, err)
			text.WriteString(built.ReplaceAllString(string(content), "knative.dev/$1:"+knativeVersion) + "\n---\n")
		}
	}
	file := filepath.Join(t.TempDir(), "knative.yaml")
	check(t, os.WriteFile(file, []byte(text.String()), 0o600))
	eventually(t, "Knative's manifests", func() error {
		return quiet("kubectl", "apply", "--server-side", "--force-conflicts", "--filename="+file)
	})
}

// ready waits for a Service of Knative. There is no ingress: what one reports is written for it.
func (c *cluster) ready(t *testing.T, name string) {
	t.Helper()
	eventually(t, name, func() error {
		generation, err := exec.Command("kubectl", "get", "kingress", name, "--output=jsonpath={.metadata.generation}").Output()
		if err != nil {
			said, _ := exec.Command("kubectl", "get", "ksvc,revision,pods", "--output=wide").CombinedOutput()
			return fmt.Errorf("no ingress yet: %s", said)
		}
		const balancer = `{"ingress": [{"domainInternal": "ingress.knative-serving.svc.cluster.local"}]}`
		var conditions []string
		for _, kind := range []string{"LoadBalancerReady", "NetworkConfigured", "Ready"} {
			now := time.Now().UTC().Format(time.RFC3339)
			conditions = append(conditions, fmt.Sprintf(`{"type": %q, "status": "True", "lastTransitionTime": %q}`, kind, now))
		}
		status := fmt.Sprintf(`{"status": {"observedGeneration": %[1]s, "publicLoadBalancer": %[2]s, "privateLoadBalancer": %[2]s, "conditions": [%[3]s]}}`,
			generation, balancer, strings.Join(conditions, ", "))
		if err := quiet("kubectl", "patch", "kingress", name, "--subresource=status", "--type=merge", "--patch", status); err != nil {
			return err
		}
		latest := kubectl(t, "get", "ksvc", name, "--output=jsonpath={.status.latestCreatedRevisionName} {.status.latestReadyRevisionName} {.metadata.generation} {.status.observedGeneration}")
		words := strings.Fields(latest)
		if len(words) != 4 || words[0] != words[1] || words[2] != words[3] {
			return fmt.Errorf("%s", latest)
		}
		return quiet("kubectl", "wait", "--for=condition=Ready", "ksvc/"+name, "--timeout=5s")
	})
}

// activator is where requests for a revision go, and with which headers.
func (c *cluster) activator(t *testing.T, service string) (address string, headers map[string]string) {
	t.Helper()
	revision := kubectl(t, "get", "ksvc", service, "--output=jsonpath={.status.latestReadyRevisionName}")
	address = kubectl(t, "get", "service", "activator-service", "--namespace=knative-serving", "--output=jsonpath={.spec.clusterIP}:80")
	return address, map[string]string{"Knative-Serving-Namespace": "default", "Knative-Serving-Revision": revision, "Memory-Request": "4"}
}

// pods counts the pods of a Service of Knative. Those that were told to end serve nobody; queue-proxy has them stay for half a minute.
func (c *cluster) pods(t *testing.T, service string) int {
	t.Helper()
	return len(kubectl(t, "get", "pods", "--selector=serving.knative.dev/service="+service,
		"--output=go-template={{range .items}}{{if not .metadata.deletionTimestamp}}.{{end}}{{end}}"))
}

func (c *cluster) zero(t *testing.T, service string) {
	t.Helper()
	eventually(t, service+" at zero", func() error {
		if pods := c.pods(t, service); pods != 0 {
			return fmt.Errorf("%d pods", pods)
		}
		return nil
	})
}

// coldStarts measures from a request to its answer, beginning with no pod, for each Service in turns: COLD_STARTS=20 for figures.
func (c *cluster) coldStarts(t *testing.T, services []string) {
	times := 3
	if text := os.Getenv("COLD_STARTS"); text != "" {
		var err error
		times, err = strconv.Atoi(text)
		check(t, err)
	}
	taken := make([][]float64, len(services))
	parts := make([][4]float64, len(services))
	for range times {
		for number, service := range services {
			c.zero(t, service)
			address, headers := c.activator(t, service)
			began := time.Now()
			connection, err := client{path: "/hello", expected: "hello\n"}.exchange(nil, address, c.request(t, address, headers))
			connection.close()
			if err != nil {
				t.Errorf("%s from zero: %v", service, err)
			}
			ended := time.Now()
			taken[number] = append(taken[number], ended.Sub(began).Seconds())
			for part, seconds := range c.partsOfStart(t, service, began, ended) {
				parts[number][part] += seconds / float64(times)
			}
		}
	}
	t.Logf("| from zero, %d in turns | median s | least | most | on the mean, until kubelet runs the pod | its sandbox | its containers | until the answer |", times)
	for number, service := range services {
		slices.Sort(taken[number])
		t.Logf("| %s | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f |", service, taken[number][times/2], taken[number][0], taken[number][times-1],
			parts[number][0], parts[number][1], parts[number][2], parts[number][3])
	}
}

// partsOfStart says by containerd's log where the time of a cold start went.
func (c *cluster) partsOfStart(t *testing.T, service string, began, ended time.Time) [4]float64 {
	t.Helper()
	log, err := os.ReadFile(c.containerd.log())
	check(t, err)
	line := regexp.MustCompile(`(?m)^time="([^"]+)".* msg="(RunPodSandbox for name:\\"` + service + `-|StartContainer for )(.*)$`)
	sandbox, sandboxEnded, started := began, began, began
	for _, found := range line.FindAllStringSubmatch(string(log), -1) {
		at, err := time.Parse(time.RFC3339Nano, found[1])
		check(t, err)
		returns := strings.Contains(found[3], " returns ")
		switch {
		case at.Before(began) || at.After(ended):
		case strings.HasPrefix(found[2], "StartContainer"):
			if returns {
				started = at
			}
		case returns:
			sandboxEnded = at
		default:
			sandbox = at
		}
	}
	return [4]float64{
		sandbox.Sub(began).Seconds(), sandboxEnded.Sub(sandbox).Seconds(), started.Sub(sandboxEnded).Seconds(), ended.Sub(started).Seconds(),
	}
}

func (c *cluster) request(t *testing.T, address string, headers map[string]string) *http.Request {
	t.Helper()
	request, err := http.NewRequest("GET", "http://"+address+"/hello", nil)
	check(t, err)
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	return request
}

// burst has many requests arrive where there is no pod: each is answered.
func (c *cluster) burst(t *testing.T, service string) {
	c.zero(t, service)
	address, headers := c.activator(t, service)
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			connection, err := client{path: "/hello", expected: "hello\n"}.exchange(nil, address, c.request(t, address, headers))
			connection.close()
			if err != nil {
				t.Errorf("%v", err)
			}
		})
	}
	all.Wait()
	t.Logf("%d pods answered 100 requests", c.pods(t, service))
}

// revisions makes new revisions under load, which moves to each when it is ready, as an ingress has it; the former ones end.
func (c *cluster) revisions(t *testing.T, service string) {
	through := func() *load {
		address, headers := c.activator(t, service)
		var clients []client
		for _, one := range all() {
			if !one.http2 {
				one.headers = headers
				clients = append(clients, one)
			}
		}
		return begin(t, address, clients...)
	}
	l := through()
	for number := range 3 {
		kubectl(t, "patch", "ksvc", service, "--type=merge", "--patch",
			fmt.Sprintf(`{"spec": {"template": {"metadata": {"annotations": {"example.com/number": "%d"}}}}}`, number))
		c.ready(t, service)
		next := through()
		l.end(t)
		l = next
	}
	eventually(t, "the former revisions' end", func() error {
		if pods := c.pods(t, service); pods != 1 {
			return fmt.Errorf("%d pods", pods)
		}
		return nil
	})
	l.end(t)
}
