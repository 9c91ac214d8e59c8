package cluster

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// daemon is one of the node's services: what systemd does with it elsewhere, the tests do.
type daemon struct {
	name    string
	command []string
	// answers says whether it is ready.
	answers func() error

	// guards all below
	mutex   sync.Mutex
	process *exec.Cmd
	ended   chan struct{}
}

func (d *daemon) log() string { return "/var/log/" + d.name + ".log" }

func (d *daemon) start() error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.launch()
}

// launch needs the mutex.
func (d *daemon) launch() error {
	log, err := os.OpenFile(d.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	process := exec.Command(d.command[0], d.command[1:]...)
	process.Stdout, process.Stderr = log, log
	process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := process.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_ = process.Wait()
		close(ended)
	}()
	d.process, d.ended = process, ended
	var last error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		select {
		case <-ended:
			return fmt.Errorf("%s: %v: %s", d.name, process.ProcessState, d.tail())
		default:
		}
		if last = d.answers(); last == nil {
			return nil
		}
	}
	return fmt.Errorf("%s does not answer: %w: %s", d.name, last, d.tail())
}

// restart ends it by this signal, and starts it anew. What it started goes on, as with systemd's KillMode=process.
func (d *daemon) restart(signal syscall.Signal) error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if err := d.end(signal); err != nil {
		return err
	}
	return d.launch()
}

// stop ends it.
func (d *daemon) stop(signal syscall.Signal) error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.end(signal)
}

// end needs the mutex.
func (d *daemon) end(signal syscall.Signal) error {
	_ = d.process.Process.Signal(signal)
	select {
	case <-d.ended:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%s does not end on %v", d.name, signal)
	}
}

func (d *daemon) tail() string {
	log, _ := os.ReadFile(d.log())
	lines := strings.Split(string(log), "\n")
	return strings.Join(lines[max(0, len(lines)-25):], "\n")
}

// services lets `systemctl restart NAME` on the node restart them.
func services(t *testing.T, daemons ...*daemon) {
	listener, err := net.Listen("unix", "/run/services.sock")
	check(t, err)
	handler := func(answer http.ResponseWriter, request *http.Request) {
		for _, daemon := range daemons {
			if daemon.name == strings.TrimSuffix(request.PathValue("name"), ".service") {
				if err := daemon.restart(syscall.SIGTERM); err != nil {
					http.Error(answer, err.Error(), http.StatusInternalServerError)
				}
				return
			}
		}
		http.NotFound(answer, request)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /restart/{name}", handler)
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
}
