package cluster

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// client calls a function again and again. Those of HTTP/1.1 speak it by themselves: the client of Go would send again what failed.
type client struct {
	path, body, expected string
	// kept: a connection is used for as long as the server does not close it with an answer. Without: a new one each time.
	kept  bool
	http2 bool
	// headers are sent with each request.
	headers map[string]string
}

// load is what clients do until it ends.
type load struct {
	answered atomic.Int64
	stop     context.CancelFunc
	clients  sync.WaitGroup
	mutex    sync.Mutex
	failures []string
}

// begin starts clients, who call this address.
func begin(t *testing.T, address string, clients ...client) *load {
	context, stop := context.WithCancel(context.Background())
	l := &load{stop: stop}
	for number, client := range clients {
		l.clients.Add(1)
		go func() {
			defer l.clients.Done()
			l.call(context, address, number, client)
		}()
	}
	t.Cleanup(func() { stop(); l.clients.Wait() })
	return l
}

// all are the ways in which clients call a box: GET and POST, kept connections and new ones, short and slow, HTTP/1.1 and 2.
func all() []client {
	small := map[string]string{"Memory-Request": "4"}
	text := strings.Repeat("what is sent comes back\n", 100)
	return []client{
		{path: "/hello", expected: "hello\n", kept: true, headers: small},
		{path: "/hello", expected: "hello\n", headers: small},
		{path: "/echo", body: text, expected: text, kept: true, headers: small},
		{path: "/echo", body: text, expected: text, headers: small},
		{path: "/slow", expected: "slow\n", kept: true, headers: small},
		{path: "/slow", expected: "slow\n", headers: small},
		{path: "/hello", expected: "hello\n", kept: true, http2: true, headers: small},
		{path: "/echo", body: text, expected: text, kept: true, http2: true, headers: small},
	}
}

// pause is what each client waits between two calls, so that it is the pods that are tested, and not the machine.
const pause = 4 * time.Millisecond

func (l *load) call(context context.Context, address string, number int, c client) {
	var connection *http1
	multiplexed := newHTTP2(c.kept)
	defer multiplexed.CloseIdleConnections()
	for context.Err() == nil {
		began := time.Now()
		request, err := http.NewRequest("GET", "http://"+address+c.path, nil)
		if c.body != "" {
			request, err = http.NewRequest("POST", "http://"+address+c.path, strings.NewReader(c.body))
		}
		if err == nil {
			for name, value := range c.headers {
				request.Header.Set(name, value)
			}
			if c.http2 {
				err = expect(c)(multiplexed.Do(request))
			} else {
				connection, err = c.exchange(connection, address, request)
			}
		}
		if err == nil {
			l.answered.Add(1)
		} else {
			l.fail("client %d, %s, after %.1f ms: %v", number, c.path, float64(time.Since(began).Microseconds())/1000, err)
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(pause)
	}
	connection.close()
}

func (l *load) fail(format string, arguments ...any) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.failures = append(l.failures, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, arguments...))
}

// end ends the clients, and gives how many calls were answered. Each that failed fails the test.
func (l *load) end(t *testing.T) int64 {
	t.Helper()
	l.stop()
	l.clients.Wait()
	answered := l.answered.Load()
	t.Logf("%d calls were answered, %d failed", answered, len(l.failures))
	if len(l.failures) > 0 {
		t.Errorf("%d of %d calls failed:\n%s", len(l.failures), answered+int64(len(l.failures)),
			strings.Join(l.failures[:min(len(l.failures), 20)], "\n"))
	}
	if answered == 0 {
		t.Error("no call was answered")
	}
	return answered
}

// http1 is one connection.
type http1 struct {
	stream net.Conn
	reader *bufio.Reader
}

func (h *http1) close() {
	if h != nil {
		_ = h.stream.Close()
	}
}

// exchange sends a request on a connection, a new one if there is none. Gives the connection, if it is to be used again.
func (c client) exchange(connection *http1, address string, request *http.Request) (*http1, error) {
	if connection == nil {
		stream, err := net.DialTimeout("tcp", address, 10*time.Second)
		if err != nil {
			return nil, err
		}
		connection = &http1{stream, bufio.NewReader(stream)}
	}
	request.Close = !c.kept
	_ = connection.stream.SetDeadline(time.Now().Add(time.Minute))
	if err := request.Write(connection.stream); err != nil {
		connection.close()
		return nil, fmt.Errorf("sending: %w", err)
	}
	answer, err := http.ReadResponse(connection.reader, request)
	if err == nil {
		err = expect(c)(answer, nil)
	}
	if err != nil || answer.Close || !c.kept {
		connection.close()
		return nil, err
	}
	return connection, nil
}

// expect says what is wrong with an answer.
func expect(c client) func(*http.Response, error) error {
	return func(answer *http.Response, err error) error {
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err == nil && (answer.StatusCode != http.StatusOK || string(body) != c.expected) {
			err = fmt.Errorf("%s: %s", answer.Status, body)
		}
		return err
	}
}

// newHTTP2 is a client of HTTP/2 without TLS. It sends again what the server said by GOAWAY that it never took, as the protocol has it.
func newHTTP2(kept bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Client{
		Timeout:   time.Minute,
		Transport: &http.Transport{Protocols: protocols, DisableKeepAlives: !kept, TLSClientConfig: &tls.Config{}},
	}
}
