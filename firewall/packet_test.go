package firewall

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// TestFragments sends datagrams that need several packets, both ways.
func TestFragments(t *testing.T) {
	node := newTestNode(t)
	client, server := node.workload(t), node.workload(t)
	server.serve(t, 80, 53)
	big := []byte(strings.Repeat("0123456789", 400))
	for _, guarded := range []bool{true, false} {
		if !guarded {
			for _, w := range []*testWorkload{client, server} {
				if err := w.ns.Remove(); err != nil {
					t.Fatal(err)
				}
				w.ns = nil
				w.unguarded()
			}
		}
		for _, row := range []struct {
			name           string
			client, server policy.Sides
			want           bool
		}{
			{"exact", both(egress(allows(server)...), ingress()), both(egress(), ingress(allows(client)...)), true},
			{"block, other things denied", denyOut(both(egress(allBlocks()...), ingress()), churn(1)...), denyIn(both(egress(), ingress(allBlocks()...)), churn(1)...), true},
			{"open, others denied", denyOut(policy.Sides{}, testEntry("10.77.0.99", 0, 0, 0), testEntry("fd77::99", 0, 0, 0)), policy.Sides{}, true},
			{"block", both(egress(testEntry("10.77.0.0/24", identity.UDP, 53, 53), testEntry("fd77::/64", 0, 0, 0)), ingress()), both(egress(), ingress(testEntry("10.77.0.0/24", 0, 0, 0), testEntry("fd77::/64", 0, 0, 0))), true},
			{"open", policy.Sides{}, policy.Sides{}, true},
			{"denied", policy.Sides{}, both(egress(), ingress()), false},
		} {
			t.Run(fmt.Sprintf("guarded=%v/%s", guarded, row.name), func(t *testing.T) {
				client.apply(t, policy.Enforce, row.client)
				server.apply(t, policy.Enforce, row.server)
				for _, v6 := range []bool{false, true} {
					c, err := client.dial("udp", netip.AddrPortFrom(server.addr(v6), 53), patience(true))
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					if got := exchange(c, big, patience(row.want)); got != row.want {
						t.Errorf("%s: answered %v, want %v", familyName(v6), got, row.want)
					}
					want := row.want && (v6 || row.name != "block") // which names no ICMP
					if got := client.pingsWith(server.addr(v6), len(big), patience(want)); got != want {
						t.Errorf("%s: ping answered %v, want %v", familyName(v6), got, want)
					}
				}
			})
		}
	}
}

// TestUDPAnswers: a server's answer needs the question, a client's socket gets only answers.
func TestUDPAnswers(t *testing.T) {
	node := newTestNode(t)
	w, peer := node.workload(t), node.workload(t)
	// w may be asked by everybody, may ask the peer on 53 only, and nothing else.
	w.apply(t, policy.Enforce, both(egress(testEntry(peer.v4.String(), identity.UDP, 53, 53)), ingress(testEntry("10.77.0.0/24", identity.UDP, 5000, 5000))))
	mine, asked := udpSocket(t, w, 5000), udpSocket(t, w, 6000)
	dns, other := udpSocket(t, peer, 53), udpSocket(t, peer, 7000)
	to := func(who *testWorkload, port uint16) netip.AddrPort { return netip.AddrPortFrom(who.v4, port) }
	steps := []struct {
		name   string
		from   *net.UDPConn
		dst    netip.AddrPort
		at     *net.UDPConn
		passes bool
	}{
		{"an answer that nobody asked for", mine, to(peer, 7000), other, false},
		{"a question", other, to(w, 5000), mine, true},
		{"its answer", mine, to(peer, 7000), other, true},
		{"from the same port to another port: not asked from there", mine, to(peer, 53), dns, true}, // allowed as a question
		{"from another port", asked, to(peer, 7000), other, false},
		{"an answer before the question", dns, to(w, 6000), asked, false},
		{"a client's question", asked, to(peer, 53), dns, true},
		{"its answer", dns, to(w, 6000), asked, true},
		{"from a port that was not asked", other, to(w, 6000), asked, false},
	}
	for _, s := range steps {
		_, err := s.from.WriteToUDPAddrPort([]byte(s.name), s.dst)
		if got := err == nil && receives(s.at, s.name, s.passes); got != s.passes {
			t.Errorf("%s: arrived %v, want %v", s.name, got, s.passes)
		}
	}
}

func udpSocket(t testing.TB, w *testWorkload, port uint16) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	err := Enter(w.path, func() (err error) {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(w.v4, port)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func receives(c *net.UDPConn, what string, want bool) bool {
	_ = c.SetReadDeadline(deadline(want))
	buf := make([]byte, 200)
	n, err := c.Read(buf)
	return err == nil && string(buf[:n]) == what
}

// TestAlertsOnce: in alert mode what enforce would deny is told once, and its answers are no news.
func TestAlertsOnce(t *testing.T) {
	node := newTestNode(t)
	client, server := node.workload(t), node.workload(t)
	server.serve(t, 80, 53)
	server.apply(t, policy.AlertMode, both(egress(), ingress(testEntry(client.v4.String(), identity.TCP, 80, 80))))
	r, err := NewReader(ReaderConfig{Namespace: server.path, Workload: "server"})
	if err != nil {
		t.Fatal(err)
	}
	records := testRecords(t, r)
	for range 3 {
		for _, v6 := range []bool{false, true} {
			for _, p := range probes {
				if !p.try(client, server, v6, patience(true)) {
					t.Errorf("%s %s: no answer in alert mode", familyName(v6), p.name)
				}
			}
		}
	}
	got := map[string]int{}
	for range 6 {
		rec := testNext(t, records)
		got[fmt.Sprintf("%s %s %s %d %s", rec.Direction, rec.Client, rec.Protocol, rec.Port, rec.Verdict)]++
		if rec.Event != flow.Birth {
			t.Errorf("event %d; want a birth: %+v", rec.Event, rec)
		}
	}
	for _, want := range []string{
		"ingress 10.77.0.2 TCP 80 allow", "ingress 10.77.0.2 UDP 53 alert", "ingress 10.77.0.2 ICMP 8 alert",
		"ingress fd77::2 TCP 80 alert", "ingress fd77::2 UDP 53 alert", "ingress fd77::2 ICMPv6 128 alert",
	} {
		if got[want] != 1 {
			t.Errorf("%q told %d times, want once; all: %v", want, got[want], got)
		}
	}
	select {
	case rec := <-records:
		t.Errorf("told beyond that: %+v", rec)
	default:
	}
}

// mesh is what a service mesh puts in a workload's namespace: what the application sends is redirected
// to a proxy, whose own packets carry a mark; a chain behind ours counts that mark.
const mesh = `table ip mesh {
	chain to_proxy {
		type nat hook output priority -100; policy accept;
		meta mark != 0x539 tcp dport 80 redirect to :15001
	}
	chain marks {
		type filter hook output priority 300; policy accept;
		meta mark 0x539 counter
	}
	chain connections {
		type route hook output priority mangle; policy accept;
		meta mark 0x539 ct mark set 0x111
	}
}`

// TestMesh loads such rules before and after ours.
func TestMesh(t *testing.T) {
	for _, before := range []bool{true, false} {
		t.Run(fmt.Sprintf("before=%v", before), func(t *testing.T) {
			node := newTestNode(t)
			client, server := node.workload(t), node.workload(t)
			server.serve(t, 80, 0)
			if before {
				testLoad(t, client.path, mesh)
			}
			client.apply(t, policy.Enforce, both(egress(allows(server)...), ingress()))
			if !before {
				testLoad(t, client.path, mesh)
			}
			relayed := proxy(t, client, netip.AddrPortFrom(server.v4, 80))
			if !client.talks("tcp", netip.AddrPortFrom(server.v4, 80), patience(true)) {
				t.Error("no answer through the proxy")
			}
			if n := relayed.Load(); n != 1 {
				t.Errorf("the proxy relayed %d connections, want 1", n)
			}
			rules := testIn(t, client.path, "nft", "list", "table", "ip", "mesh")
			if strings.Contains(rules, "0x00000539 counter packets 0 ") {
				t.Errorf("the proxy's mark is lost:\n%s", rules)
			}
			client.apply(t, policy.Enforce, both(egress(), ingress()))
			if client.talks("tcp", netip.AddrPortFrom(server.v4, 80), patience(false)) {
				t.Error("the proxy reaches what policy denies")
			}
			if err := client.ns.Check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// proxy relays what comes to port 15001 to the server, with the mesh's mark.
func proxy(t testing.TB, w *testWorkload, to netip.AddrPort) *atomic.Int64 {
	t.Helper()
	relayed := new(atomic.Int64)
	var l net.Listener
	err := Enter(w.path, func() (err error) {
		l, err = net.Listen("tcp4", ":15001")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	mark := func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, 0x539) })
	}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			var out net.Conn
			err = Enter(w.path, func() (err error) {
				d := net.Dialer{Control: mark, Timeout: patience(false)}
				out, err = d.DialContext(context.Background(), "tcp4", to.String())
				return err
			})
			if err != nil {
				in.Close()
				continue
			}
			relayed.Add(1)
			go func() { _, _ = io.Copy(out, in); out.Close() }()
			go func() { _, _ = io.Copy(in, out); in.Close() }()
		}
	}()
	return relayed
}
