package cluster

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// block is one block of shell commands of a document, which the tests run as it is written there.
type block struct {
	document string
	lines    []string
}

// commands finds the one block below a heading that has this text. Lines that go on are joined.
func commands(t *testing.T, document, heading, with string) block {
	t.Helper()
	text, err := os.ReadFile(document)
	check(t, err)
	var found []block
	var inHeading, inBlock bool
	var lines []string
	for line := range strings.SplitSeq(string(text), "\n") {
		// Those in lists are indented.
		line = strings.TrimSpace(line)
		switch {
		case !inBlock && strings.HasPrefix(line, "#"):
			inHeading = strings.Trim(line, "# ") == heading
		case !inBlock && line == "```sh":
			inBlock, lines = inHeading, nil
		case inBlock && line == "```":
			inBlock = false
			if strings.Contains(strings.Join(lines, "\n"), with) {
				found = append(found, block{document, lines})
			}
		case inBlock && len(lines) > 0 && strings.HasSuffix(lines[len(lines)-1], `\`):
			lines[len(lines)-1] = strings.TrimSuffix(lines[len(lines)-1], `\`) + line
		case inBlock:
			lines = append(lines, line)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s has %d blocks below %q with %q, not one", document, len(found), heading, with)
	}
	return found[0]
}

// run runs each line, as somebody types it: what talks to a command in the background is tried until that is there. Gives what each wrote.
func (b block) run(t *testing.T, skip ...string) []string {
	t.Helper()
	var said []string
lines:
	for _, line := range b.lines {
		for _, prefix := range skip {
			if strings.HasPrefix(line, prefix) {
				continue lines
			}
		}
		if background, is := strings.CutSuffix(line, " &"); is {
			said = append(said, "")
			b.start(t, background)
			continue
		}
		said = append(said, b.one(t, line))
	}
	return said
}

func (b block) one(t *testing.T, line string) string {
	t.Helper()
	t.Logf("$ %s", line)
	deadline := time.Now().Add(30 * time.Second)
	for {
		began := time.Now()
		context, cancel := context.WithTimeout(t.Context(), patience)
		command := exec.CommandContext(context, "bash", "-c", line)
		// What a pipeline leaves behind does not hold the output.
		command.WaitDelay = time.Second
		said, err := command.CombinedOutput()
		cancel()
		if err == nil {
			t.Logf("%s (%.1f s)", said, time.Since(began).Seconds())
			return string(said)
		}
		if !strings.HasPrefix(line, "curl") || time.Now().After(deadline) {
			t.Fatalf("%s: %s: %v: %s", b.document, line, err, said)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// start runs a line that somebody ends with `&`, until the test ends.
func (b block) start(t *testing.T, line string) {
	t.Helper()
	t.Logf("$ %s &", line)
	command := exec.Command("bash", "-c", "exec "+line)
	var said strings.Builder
	command.Stdout, command.Stderr = &said, &said
	check(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		t.Logf("%s said: %s", line, said.String())
	})
}

// inline finds a command that is written in the text, between backquotes, by how it begins.
func inline(t *testing.T, document, begins string) string {
	t.Helper()
	text, err := os.ReadFile(document)
	check(t, err)
	if found := regexp.MustCompile("`(" + regexp.QuoteMeta(begins) + "[^`]*)`").FindSubmatch(text); found != nil {
		return string(found[1])
	}
	t.Fatalf("%s does not say %q", document, begins)
	return ""
}
