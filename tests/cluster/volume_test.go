package cluster

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// registry is the distribution project's, on the node, under the name that the documents have for one.
func (c *cluster) registry(t *testing.T) {
	const name = "registry.example"
	c.pki.server(t, "registry", []string{name})
	appendTo(t, "/etc/hosts", "127.0.0.1 "+name+"\n")
	// JSON is YAML.
	config, err := json.Marshal(map[string]any{
		"version": "0.1",
		"log":     map[string]any{"level": "error", "accesslog": map[string]any{"disabled": true}},
		"storage": map[string]any{"filesystem": map[string]any{"rootdirectory": "/run/registry"}},
		"http": map[string]any{"addr": "127.0.0.1:443", "tls": map[string]any{
			"certificate": c.pki.path("registry.crt"), "key": c.pki.path("registry.key"),
		}},
	})
	check(t, err)
	t.Setenv("OTEL_TRACES_EXPORTER", "none")
	c.run(t, "registry", get("https://"+name+"/v2/"), "registry", "serve", c.write(t, "registry.yaml", string(config)))
}

// imageVolume installs the chart with the functions of an image, which the node pulls, by the document's commands; then another version of them.
func (c *cluster) imageVolume(t *testing.T) {
	c.registry(t)
	// Where somebody who has installed the product has it.
	t.Setenv("PATH", "/opt/wasmbox/bin:"+os.Getenv("PATH"))
	check(t, os.Mkdir("functions", 0o755))
	defer os.RemoveAll("functions")
	functions, err := filepath.Glob("tests/cluster/functions/*.wat")
	check(t, err)
	for _, function := range append(functions, "examples/functions/echo.wat", "examples/functions/hello.wat") {
		copyFile(t, function, filepath.Join("functions", filepath.Base(function)))
	}
	install := commands(t, document, "Functions as an image", "functions.image.reference")
	install.run(t)
	c.rolledOut(t)
	mounted := kubectl(t, "get", "pods", "--selector=app.kubernetes.io/instance=wasmbox", "--output=jsonpath={.items[*].spec.volumes[?(@.name=='functions')]}")
	if !strings.Contains(mounted, "registry.example/team/functions:1.0") || strings.Contains(mounted, "persistentVolumeClaim") {
		t.Errorf("the volume of functions is %s", mounted)
	}
	l := begin(t, c.service(t), all()...)
	time.Sleep(time.Second)
	l.end(t)

	l = begin(t, c.service(t), all()...)
	for i, line := range install.lines {
		install.lines[i] = strings.ReplaceAll(line, "functions:1.0", "functions:1.1")
	}
	copyFile(t, "examples/functions/hello.wat", "functions/later.wat")
	install.run(t)
	c.rolledOut(t)
	l.end(t)
	l = begin(t, c.service(t), client{path: "/later", expected: "hello\n"})
	time.Sleep(100 * time.Millisecond)
	l.end(t)
	output(t, "helm", "uninstall", "wasmbox", "--wait")
}
