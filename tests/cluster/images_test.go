package cluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// importImages makes the images that the manifests name, since no registry can be reached, and gives them to containerd. Those that are named
// by a digest keep that name, with other content: the programs are the same ones.
func (c *cluster) importImages(t *testing.T) {
	tools := "target/tools"
	pause := t.TempDir()
	output(t, "cc", "-static", "-Os", "-s", "-o", filepath.Join(pause, "pause"), "tests/containerd/pause.c")
	config, err := os.ReadFile(containerdConfig)
	check(t, err)
	name := regexp.MustCompile(`sandbox = '(.*)'`).FindSubmatch(config)
	if name == nil {
		t.Fatal("containerd's configuration names no sandbox image")
	}
	importImage(t, string(name[1]), pause, "/pause")

	busybox := t.TempDir()
	copyFile(t, tools+"/containerd/busybox", filepath.Join(busybox, "bin/busybox"))
	check(t, os.Mkdir(filepath.Join(busybox, "tmp"), 0o777))
	for _, program := range strings.Fields(output(t, tools+"/containerd/busybox", "--list")) {
		if program != "busybox" {
			check(t, os.Symlink("busybox", filepath.Join(busybox, "bin", program)))
		}
	}
	importImage(t, named(t, "deployment/functions/publish.yaml", "docker.io/library/busybox"), busybox, "")

	client := t.TempDir()
	copyFile(t, tools+"/cluster/bin/kubectl", filepath.Join(client, "bin/kubectl"))
	importImage(t, named(t, "deployment/node/installer.yaml", "registry.k8s.io/kubectl"), client, "/bin/kubectl")
}

// named is the full name, with tag and digest, that a manifest has for an image.
func named(t *testing.T, manifest, name string) string {
	t.Helper()
	text, err := os.ReadFile(manifest)
	check(t, err)
	full := regexp.MustCompile(regexp.QuoteMeta(name) + `:\S+`).Find(text)
	if full == nil {
		t.Fatalf("%s has no image %s", manifest, name)
	}
	return string(full)
}

// importImage makes an image of a directory.
func importImage(t *testing.T, name, directory, entrypoint string) {
	t.Helper()
	tagged, digest, isPinned := strings.Cut(name, "@")
	archive := filepath.Join(t.TempDir(), "image.tar")
	arguments := []string{"--env", "PATH=/bin", tagged, directory, archive}
	if entrypoint != "" {
		arguments = append([]string{"--entrypoint", entrypoint, "--user", "65532"}, arguments...)
	}
	output(t, "examples/image.sh", arguments...)
	output(t, "ctr", "--namespace=k8s.io", "images", "import", archive)
	if isPinned {
		repository := tagged[:strings.LastIndex(tagged, ":")]
		output(t, "ctr", "--namespace=k8s.io", "images", "tag", tagged, repository+"@"+digest)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	check(t, os.MkdirAll(filepath.Dir(to), 0o755))
	if said, err := exec.Command("cp", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %s", said)
	}
}
