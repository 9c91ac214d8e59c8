package cluster

import (
	"encoding/binary"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// dns answers for the names of Services, by which the parts of Knative and KEDA find each other: NAME.NAMESPACE.svc.cluster.local, IPv4. All other names do
// not exist, as search domains ask for many.
func (c *cluster) dns(t *testing.T) {
	if c.hasDNS {
		return
	}
	c.hasDNS = true
	socket, err := net.ListenPacket("udp4", nodeAddress+":53")
	check(t, err)
	c.whole.Cleanup(func() { _ = socket.Close() })
	server := &nameServer{known: map[string]record{}}
	go func() {
		buffer := make([]byte, 1500)
		for {
			length, from, err := socket.ReadFrom(buffer)
			if err != nil {
				return
			}
			query := append([]byte(nil), buffer[:length]...)
			go func() {
				if answer := server.answer(query); answer != nil {
					_, _ = socket.WriteTo(answer, from)
				}
			}()
		}
	}()
	apply(t, onNode("kube-dns", "10.96.0.10", "UDP", 53, 53))
}

type nameServer struct {
	mutex sync.Mutex
	// known is guarded by the mutex.
	known map[string]record
}

type record struct {
	address net.IP
	expires time.Time
}

// lookUp asks the API server for a Service's address, and keeps it for some seconds.
func (s *nameServer) lookUp(name string) net.IP {
	labels := strings.Split(strings.ToLower(name), ".")
	if len(labels) != 5 || strings.Join(labels[2:], ".") != "svc.cluster.local" {
		return nil
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if record := s.known[name]; time.Now().Before(record.expires) {
		return record.address
	}
	said, _ := exec.Command("kubectl", "get", "service", labels[0], "--namespace="+labels[1], "--output=jsonpath={.spec.clusterIP}").Output()
	address := net.ParseIP(string(said)).To4()
	s.known[name] = record{address, time.Now().Add(5 * time.Second)}
	return address
}

// answer makes the answer to a query of one name (RFC 1035, section 4).
func (s *nameServer) answer(query []byte) []byte {
	const header, typeA, noName = 12, 1, 3
	if len(query) < header || binary.BigEndian.Uint16(query[4:]) != 1 {
		return nil
	}
	var labels []string
	end := header
	for end < len(query) && query[end] != 0 {
		next := end + 1 + int(query[end])
		if next > len(query) {
			return nil
		}
		labels = append(labels, string(query[end+1:next]))
		end = next
	}
	// The end of the name, its type and its class.
	end += 5
	if end > len(query) {
		return nil
	}
	address := s.lookUp(strings.Join(labels, "."))
	answer := append([]byte(nil), query[:end]...)
	// It is an answer with authority; what the query has beside the question is not repeated.
	answer[2], answer[3] = query[2]&1|0x84, 0x80
	copy(answer[6:header], make([]byte, 6))
	switch {
	case address == nil:
		answer[3] |= noName
	case binary.BigEndian.Uint16(query[end-4:]) == typeA:
		answer[7] = 1
		// The name is the question's; IN, five seconds.
		answer = append(answer, 0xc0, header, 0, typeA, 0, 1, 0, 0, 0, 5, 0, 4)
		answer = append(answer, address...)
	}
	return answer
}
