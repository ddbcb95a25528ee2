package shop

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
)

// The names of the zone are those of the Services, and of what lies outside.
func TestDNSAnswers(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind dnsmessage.Type
		want string
		code dnsmessage.RCode
	}{
		{"cartservice.default.svc.cluster.local.", dnsmessage.TypeA, "10.96.0.22", dnsmessage.RCodeSuccess},
		{"CartService.default.SVC.cluster.local.", dnsmessage.TypeAAAA, "fd00:96::22", dnsmessage.RCodeSuccess},
		{"kube-dns.kube-system.svc.cluster.local.", dnsmessage.TypeA, "10.96.0.10", dnsmessage.RCodeSuccess},
		{"metadata.google.internal.", dnsmessage.TypeA, "169.254.169.254", dnsmessage.RCodeSuccess},
		{"metadata.google.internal.", dnsmessage.TypeAAAA, "", dnsmessage.RCodeSuccess}, // exists, but not in IPv6
		{"cartservice.", dnsmessage.TypeA, "", dnsmessage.RCodeNameError},
	} {
		q := dnsmessage.Message{Header: dnsmessage.Header{ID: 7}, Questions: []dnsmessage.Question{
			{Name: dnsmessage.MustNewName(tt.name), Type: tt.kind, Class: dnsmessage.ClassINET}}}
		query, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		answer, err := answerDNS(query)
		if err != nil {
			t.Fatal(err)
		}
		var m dnsmessage.Message
		if err := m.Unpack(answer); err != nil {
			t.Fatal(err)
		}
		have := ""
		for _, a := range m.Answers {
			switch b := a.Body.(type) {
			case *dnsmessage.AResource:
				have = netip.AddrFrom4(b.A).String()
			case *dnsmessage.AAAAResource:
				have = netip.AddrFrom16(b.AAAA).String()
			}
		}
		if have != tt.want || m.RCode != tt.code || m.ID != 7 || !m.Response {
			t.Errorf("%s %s: %q %s, want %q %s", tt.name, tt.kind, have, m.RCode, tt.want, tt.code)
		}
	}
}

func TestPlayRefusesUnknownPart(t *testing.T) {
	err := Play(context.Background(), Part{Name: "nobody"})
	if err == nil || !strings.Contains(err.Error(), `part "nobody": neither a service nor an external`) {
		t.Error(err)
	}
}

// A player listens where the graph says, answers, and ends without leaving a goroutine.
func TestPlayServesAndEnds(t *testing.T) {
	if !alone(t) {
		return
	}
	defer goleak.VerifyNone(t)
	ctx, cancel := context.WithCancel(context.Background())
	report := filepath.Join(t.TempDir(), "report.json")
	done := make(chan error, 1)
	go func() { done <- Play(ctx, Part{Name: "redis-cart", Report: report}) }()
	c := dialSoon(t, "127.0.0.1:6379")
	for range 3 {
		if err := exchange("redis", c); err != nil {
			t.Fatal(err)
		}
	}
	cancel() // with a client still connected
	if err := <-done; err != nil {
		t.Error(err)
	}
	c.Close()
	r, err := ReadReport(report)
	if err != nil || r.Part != "redis-cart" || len(r.Counts) != 0 {
		t.Errorf("report %+v, %v; redis-cart calls nobody", r, err)
	}
}

// Every edge of the graph has a way to its server, and each part counts its own edges.
func TestFind(t *testing.T) {
	g := load(t)
	p := &player{graph: g, dns: netip.MustParseAddr("127.0.0.1")}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // no lookup may succeed: only the port and the way are of interest
	for _, e := range g.Edges {
		if e.AppProtocol == "dns" {
			continue
		}
		addrs, port, err := p.find(ctx, e)
		switch {
		case e.From == "world" && (addrs[0] != LoadBalancer || port != 80):
			t.Errorf("%s → %s: %v port %d, want the load balancer", e.From, e.To, addrs, port)
		case e.From == "node" && (addrs[0].String()[:6] != "10.88." || port != e.Port || err != nil):
			t.Errorf("%s → %s: %v port %d, %v, want the pod itself", e.From, e.To, addrs, port, err)
		case e.To == "emailservice" && e.From != "node" && port != 5000:
			t.Errorf("%s → %s: port %d, want the Service's", e.From, e.To, port)
		case err != nil && strings.Contains(err.Error(), "no Service leads there"):
			t.Error(err)
		}
	}
}

// alone runs the test again in a network namespace of its own, where the shop's ports are free and
// nobody else can reach them, and says whether this is that run.
func alone(t *testing.T) bool {
	t.Helper()
	const flag = "SHOP_TEST_ALONE"
	if os.Getenv(flag) != "" {
		return true
	}
	if os.Geteuid() != 0 {
		if os.Getenv("BULKHEAD_REQUIRE_ROOT") == "1" {
			t.Fatal("not root, and BULKHEAD_REQUIRE_ROOT=1 wants every test to run")
		}
		t.Skip("needs root for a network namespace")
	}
	cmd := exec.Command("unshare", "-n", "sh", "-c", `ip link set lo up && exec "$0" "$@"`, os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), flag+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

func dialSoon(t *testing.T, address string) net.Conn {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err == nil {
			if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			return c
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
