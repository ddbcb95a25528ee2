package firewall

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Thousands of connections lose their right at once: BULKHEAD_SOCKETS of them (10000 for the whole).
func TestCutMany(t *testing.T) {
	n := 1000
	if s := os.Getenv("BULKHEAD_SOCKETS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	node := newTestNode(t)
	server, client := node.workload(t), node.workload(t)
	for _, w := range []*testWorkload{server, client} {
		w.apply(t, policy.Learn, policy.Sides{})
	}
	var l net.Listener
	if err := Enter(server.path, func() (err error) {
		l, err = net.Listen("tcp", ":80")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, n)
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	var conns []net.Conn
	t.Cleanup(func() {
		l.Close()
		for _, c := range conns {
			c.Close()
		}
	})
	if err := Enter(client.path, func() error {
		for range n {
			c, err := net.DialTimeout("tcp", netip.AddrPortFrom(server.v4, 80).String(), 20*time.Second)
			if err != nil {
				return err
			}
			conns = append(conns, c)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for range n {
		conns = append(conns, <-accepted)
	}
	start := time.Now()
	server.apply(t, policy.Enforce, both(egress(), ingress()))
	took := time.Since(start)
	for i, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Fatalf("connection %d of %d goes on: %v", i, len(conns), err)
		}
	}
	t.Logf("%d connections cut at the server in %v, and both ends of each know it", n, took)
}
