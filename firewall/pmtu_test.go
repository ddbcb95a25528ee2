package firewall

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// farAway makes a host behind a link that takes only 1300 bytes, which neither end knows of:
//
//	workload ── br0 node ══ 1300 ══ middle ── 1500 ── far 10.79.0.2, fd79::2
func (n *testNode) farAway(t testing.TB) *testWorkload {
	t.Helper()
	middle, far := testNamespace(t), testNamespace(t)
	node, mid, end := filepath.Base(n.path), filepath.Base(middle), filepath.Base(far)
	for _, path := range []string{middle, far} {
		quickIPv6(t, path)
	}
	for _, path := range []string{n.path, middle} {
		testIn(t, path, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	}
	wire := func(a, nameA, b, nameB, net4, net6, mtu string) {
		testRun(t, "ip", "-n", a, "link", "add", nameA, "mtu", mtu, "type", "veth", "peer", "name", nameB, "mtu", mtu, "netns", b)
		for _, x := range []struct{ ns, name, host string }{{a, nameA, "1"}, {b, nameB, "2"}} {
			testRun(t, "ip", "-n", x.ns, "addr", "add", net4+x.host+"/24", "dev", x.name)
			testRun(t, "ip", "-n", x.ns, "addr", "add", net6+x.host+"/64", "dev", x.name, "nodad")
			testRun(t, "ip", "-n", x.ns, "link", "set", x.name, "up")
		}
	}
	wire(node, "narrow", mid, "narrow", "10.78.0.", "fd78::", "1300")
	wire(mid, "wide", end, "eth0", "10.79.0.", "fd79::", "1500")
	for _, r := range []struct{ ns, to, via string }{
		{node, "10.79.0.0/24", "10.78.0.2"}, {node, "fd79::/64", "fd78::2"},
		{mid, "10.77.0.0/24", "10.78.0.1"}, {mid, "fd77::/64", "fd78::1"},
		{end, "default", "10.79.0.1"}, {end, "::/0", "fd79::1"},
	} {
		testRun(t, "ip", "-n", r.ns, "route", "add", r.to, "via", r.via)
	}
	return &testWorkload{t: t, path: far, node: n, v4: netip.MustParseAddr("10.79.0.2"), v6: netip.MustParseAddr("fd79::2")}
}

// TestPathMTU: what a router says of a narrow link reaches the sender, so that large transfers pass in
// both directions, under enforce, with nothing allowed but the connection itself.
func TestPathMTU(t *testing.T) {
	node := newTestNode(t)
	far, w := node.farAway(t), node.workload(t)
	testRun(t, "ip", "-n", filepath.Base(w.path), "route", "add", "::/0", "via", "fd77::1")
	far.serve(t, 80, 0)
	w.serve(t, 80, 0)
	only := func(a *testWorkload) []policy.Entry {
		return []policy.Entry{testEntry(a.v4.String(), identity.TCP, 80, 80), testEntry(a.v6.String(), identity.TCP, 80, 80)}
	}
	much := []byte(strings.Repeat("0123456789abcdef", 12_000))
	for _, guarded := range []bool{true, false} {
		if !guarded {
			if err := w.ns.Remove(); err != nil {
				t.Fatal(err)
			}
			w.ns = nil
			w.unguarded()
		}
		w.apply(t, policy.Enforce, both(egress(only(far)...), ingress(only(far)...)))
		for _, v6 := range []bool{false, true} {
			for _, row := range []struct {
				name     string
				from, to *testWorkload
			}{{"as client", w, far}, {"as server", far, w}} {
				t.Run(fmt.Sprintf("guarded=%v/%s/%s", guarded, familyName(v6), row.name), func(t *testing.T) {
					for _, path := range []string{w.path, far.path} { // what was learned before
						testIn(t, path, "ip", "route", "flush", "cache")
						testIn(t, path, "ip", "-6", "route", "flush", "cache")
					}
					c, err := row.from.dial("tcp", netip.AddrPortFrom(row.to.addr(v6), 80), patience(true))
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					if !exchange(c, much, 20*time.Second) {
						t.Error("a large transfer does not come through")
					}
				})
			}
		}
	}
	w.apply(t, policy.Enforce, both(egress(), ingress()))
	if w.talks("tcp", netip.AddrPortFrom(far.v4, 80), patience(false)) {
		t.Error("what is denied is reached")
	}
}

// TestNeighbours: under enforce, from before its link comes up, a workload finds out that its address
// is free, or taken, is found by its neighbours, and tells routers which groups it is in.
func TestNeighbours(t *testing.T) {
	node := newTestNode(t)
	first, second := node.workload(t), node.workload(t)
	for _, w := range []*testWorkload{first, second} {
		name := filepath.Base(w.path)
		testRun(t, "ip", "-n", name, "link", "set", "eth0", "down")
		testRun(t, "ip", "-n", name, "addr", "flush", "dev", "eth0")
		testIn(t, w.path, "sysctl", "-qw", "net.ipv6.conf.all.accept_dad=1", "net.ipv6.conf.eth0.accept_dad=1")
		w.ifc.Addrs = []netip.Addr{first.v4, first.v6} // both believe that it is theirs
		w.apply(t, policy.Enforce, rejecting(both(egress(), ingress())))
	}
	ear := second.sniffer(t)
	up := func(w *testWorkload) {
		name := filepath.Base(w.path)
		testRun(t, "ip", "-n", name, "link", "set", "eth0", "up")
		testRun(t, "ip", "-n", name, "addr", "add", first.v6.String()+"/64", "dev", "eth0")
	}
	state := func(w *testWorkload, taken bool) {
		t.Helper()
		var got string
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			got = testIn(t, w.path, "ip", "-6", "addr", "show", "dev", "eth0", "scope", "global")
			failed := strings.Contains(got, "dadfailed")
			if strings.Contains(got, first.v6.String()) && failed == taken && (taken || !strings.Contains(got, "tentative")) {
				return
			}
		}
		t.Errorf("address taken: want %v, have:\n%s", taken, got)
	}
	testRun(t, "ip", "-n", filepath.Base(second.path), "link", "set", "eth0", "up")
	up(first)
	state(first, false)
	if !hears(ear, first.ifc.MAC, 135) || !hears(ear, first.ifc.MAC, 143) {
		t.Error("no neighbour solicitation or no report of multicast groups came through")
	}
	up(second)
	state(second, true)
	// Nothing but neighbour discovery is allowed; who asks is told so at once.
	asker := &testWorkload{t: t, path: node.path}
	if _, err := asker.dial("tcp", netip.AddrPortFrom(first.v6, 80), patience(true)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the node does not find its neighbour: %v", err)
	}
}

// hears says whether an ICMPv6 message of a type comes from a MAC, multicast reports behind a hop-by-hop
// header included.
func hears(fd int, mac net.HardwareAddr, kind byte) bool {
	buf := make([]byte, 2000)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		tv := unix.NsecToTimeval(int64(time.Until(end)))
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false
		}
		if n < 62 || !bytes.Equal(buf[6:12], mac) || buf[12] != 0x86 || buf[13] != 0xdd {
			continue
		}
		next, at := buf[20], 54
		if next == unix.IPPROTO_HOPOPTS {
			next, at = buf[54], 54+8+8*int(buf[55])
		}
		if next == unix.IPPROTO_ICMPV6 && at < n && buf[at] == kind {
			return true
		}
	}
	return false
}
