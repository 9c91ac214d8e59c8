package cluster

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// nodeFiles are what an installation may touch, each with what is in it.
func (c *cluster) nodeFiles(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, directory := range []string{"/etc/containerd", "/opt", "/usr/local/bin"} {
		check(t, filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			content := []byte(entry.Type().String())
			if entry.Type().IsRegular() {
				if content, err = os.ReadFile(path); err != nil {
					return err
				}
			}
			files[path] = fmt.Sprintf("%x", sha256.Sum256(content))
			return nil
		}))
	}
	return files
}

// removal takes all away, by the document's commands; the node is then what it was.
func (c *cluster) removal(t *testing.T, before map[string]string) {
	lines := commands(t, document, "Removing it", "kubectl delete -k deployment/single-node")
	lines.run(t)
	c.helm(t)
	c.imageVolume(t)
	commands(t, document, "Removing it", "kubectl delete persistentvolumeclaim").run(t)
	eventually(t, "the boxes' end", func() error {
		if pods := kubectl(t, "get", "pods"); pods != "" {
			return fmt.Errorf("%s", pods)
		}
		return nil
	})
	if shims, _ := exec.Command("pgrep", "--full", "containerd-shim-wasmbox-v1").Output(); len(shims) > 0 {
		t.Errorf("shims are left: %s", shims)
	}
	said := commands(t, document, "Nodes", "installer.uninstall=true").run(t)
	if said[0] != "" {
		t.Errorf("pods of the class are left: %s", said[0])
	}
	after := c.nodeFiles(t)
	if maps.Equal(before, after) {
		return
	}
	for _, path := range slices.Sorted(maps.Keys(after)) {
		if before[path] != after[path] {
			t.Errorf("the node is not what it was: %s", path)
		}
	}
	for path := range before {
		if _, there := after[path]; !there {
			t.Errorf("the node is not what it was: %s is gone", path)
		}
	}
	text, err := os.ReadFile(containerdConfig)
	check(t, err)
	t.Logf("containerd's configuration has wasmbox: %v", strings.Contains(string(text), "wasmbox"))
}

// helm installs the chart instead of what the quick start applied, with the functions that are there.
func (c *cluster) helm(t *testing.T) {
	c.installChart(t)
	l := begin(t, c.service(t), all()...)
	time.Sleep(time.Second)
	l.end(t)
	c.uninstallChart(t)
}

func (c *cluster) installChart(t *testing.T) {
	t.Helper()
	install := commands(t, document, "Quick start", "helm install wasmbox")
	install.lines[0] += " " + inline(t, document, "--set functions.create=false")
	install.run(t)
	c.rolledOut(t)
}

func (c *cluster) uninstallChart(t *testing.T) {
	t.Helper()
	_, uninstall, _ := strings.Cut(commands(t, document, "Removing it", "kubectl delete -k deployment/single-node").lines[0], "; or: ")
	block{document, []string{uninstall}}.run(t)
}
