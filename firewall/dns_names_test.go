package firewall

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

func addr78(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 78, 0, n}) }

// fixed answers each name with its records.
func fixed(records map[string][]dnsmessage.Resource) func(string, dnsmessage.Type) []dnsmessage.Resource {
	return func(name string, _ dnsmessage.Type) []dnsmessage.Resource { return records[name] }
}

func (l *dnsLab) connects(a netip.Addr, want bool) bool {
	return l.client.talks("tcp", netip.AddrPortFrom(a, 80), patience(want))
}

// TestNamesOfAnswers: which answers open what.
func TestNamesOfAnswers(t *testing.T) {
	l := newDNSLab(t, true,
		policy.NameEntry{Name: "api.example.com", Protocol: identity.TCP, Port: 80, EndPort: 80},
		policy.NameEntry{Name: "*.cdn.example.net", Protocol: identity.TCP, Port: 80, EndPort: 80},
		policy.NameEntry{Name: "other.example.org", Protocol: identity.TCP, Port: 81, EndPort: 81})
	l.server.serve(t, 80, 0)
	l.server.serve(t, 81, 0)
	l.zone.serve(fixed(map[string][]dnsmessage.Resource{
		"api.example.com":     {recordA("api.example.com", 5, addr78(1)), recordA("api.example.com", 5, addr78(2))},
		"www.alias.org":       {recordA("x.y.cdn.example.net", 5, addr78(3)), recordCNAME("mid.alias.org", "x.y.cdn.example.net"), recordCNAME("www.alias.org", "mid.alias.org")},
		"cdn.example.net":     {recordA("cdn.example.net", 5, addr78(4))},
		"evil.org":            {recordA("evil.org", 5, addr78(5)), recordA("api.example.com", 5, addr78(5))},
		"API.Example.COM":     {recordA("API.Example.COM", 5, addr78(6))},
		"other.example.org":   {recordA("other.example.org", 5, addr78(2))},
		"loop.example.com":    {recordCNAME("loop.example.com", "loop.example.com"), recordA("loop.example.com", 5, addr78(7))},
		"unknown.example.com": {recordA("unknown.example.com", 5, addr78(8))},
	}))
	l.apply(policy.Enforce)
	l.read()
	rows := []struct {
		asked string
		then  netip.Addr
		want  bool
	}{
		{"api.example.com", addr78(1), true},
		{"api.example.com", addr78(2), true},
		{"www.alias.org", addr78(3), true},    // by the last name of the chain
		{"cdn.example.net", addr78(4), false}, // a wildcard does not mean the domain itself
		{"evil.org", addr78(5), false},        // a record of a name that was not asked for
		{"API.Example.COM", addr78(6), true},
		{"loop.example.com", addr78(7), false},
		{"unknown.example.com", addr78(8), false},
	}
	for _, r := range rows {
		before := l.connects(r.then, false)
		if before && r.asked != "api.example.com" {
			t.Errorf("%s: open before %s was asked for", r.then, r.asked)
		}
		c := l.dialDNS("udp", false)
		ask(t, c, r.asked, dnsmessage.TypeA)
		c.Close()
		if got := l.connects(r.then, r.want); got != r.want {
			t.Errorf("%s after asking for %s: connects %v, want %v", r.then, r.asked, got, r.want)
		}
	}
	// A second name with the same address opens its own port, and takes nothing from the first.
	to81 := func(want bool) bool { return l.client.talks("tcp", netip.AddrPortFrom(addr78(2), 81), patience(want)) }
	if to81(false) {
		t.Error("port 81 is open before its name was asked for")
	}
	c := l.dialDNS("udp", false)
	defer c.Close()
	ask(t, c, "other.example.org", dnsmessage.TypeA)
	if !to81(true) || !l.connects(addr78(2), true) {
		t.Error("an address with two names is not open for both")
	}
	if err := l.client.ns.Check(); err != nil {
		t.Error(err)
	}
}

// TestAnswersOverTCP: messages cut in any way teach before they are whole at the client.
func TestAnswersOverTCP(t *testing.T) {
	for _, guarded := range []bool{true, false} {
		for name, cut := range map[string]func([]byte) [][]byte{
			"length alone": func(m []byte) [][]byte { return [][]byte{m[:2], m[2:]} },
			"half":         func(m []byte) [][]byte { return [][]byte{m[:len(m)/2], m[len(m)/2:]} },
			"bytes": func(m []byte) (out [][]byte) {
				for i := range m {
					out = append(out, m[i:i+1])
				}
				return out
			},
		} {
			t.Run(fmt.Sprintf("guarded=%v/%s", guarded, name), func(t *testing.T) {
				l := newDNSLab(t, guarded, web...)
				l.zone.serve(fixed(map[string][]dnsmessage.Resource{"a.example.com": {recordA("a.example.com", 5, addr78(1))}}))
				l.zone.cut(cut)
				l.server.serve(t, 80, 0)
				l.apply(policy.Enforce)
				l.read()
				c := l.dialDNS("tcp", false)
				defer c.Close()
				ask(t, c, "a.example.com", dnsmessage.TypeA)
				to, err := l.client.dial("tcp", netip.AddrPortFrom(addr78(1), 80), patience(true))
				if err != nil {
					t.Fatal(err)
				}
				defer to.Close()
				if n := retransmits(t, to); n > 0 {
					t.Errorf("the first segment was lost: %d sent again", n)
				}
			})
		}
	}
	t.Run("several in one segment", func(t *testing.T) {
		l := newDNSLab(t, true, web...)
		l.zone.serve(func(name string, _ dnsmessage.Type) []dnsmessage.Resource {
			return []dnsmessage.Resource{recordA(name, 5, addr78(name[0]))}
		})
		var held []byte
		l.zone.cut(func(m []byte) [][]byte {
			if held = append(held, m...); held[len(held)-1] == 'c' { // the last octet of the third one's address
				return [][]byte{held}
			}
			return nil
		})
		l.server.serve(t, 80, 0)
		l.apply(policy.Enforce)
		l.read()
		c := l.dialDNS("tcp", false)
		defer c.Close()
		var all []byte
		for _, n := range []string{"a", "b", "c"} {
			q := question(1, n+".example.com", dnsmessage.TypeA)
			all = append(binary.BigEndian.AppendUint16(all, uint16(len(q))), q...)
		}
		if _, err := c.Write(all); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(deadline(true))
		if _, err := c.Read(make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
		for _, n := range []byte("abc") {
			if !l.connects(addr78(n), true) {
				t.Errorf("%s is not open", addr78(n))
			}
		}
	})
}

// TestNamesEnd: what a name opened closes with its TTL, but not under a connection.
func TestNamesEnd(t *testing.T) {
	for _, guarded := range []bool{true, false} {
		t.Run(fmt.Sprintf("guarded=%v", guarded), func(t *testing.T) {
			l := newDNSLab(t, guarded, web...)
			l.zone.serve(fixed(map[string][]dnsmessage.Resource{
				"a.example.com": {recordA("a.example.com", 5, addr78(1))},
				"b.example.com": {recordA("b.example.com", 5, addr78(2))},
				"c.example.com": {recordA("c.example.com", 5, addr78(3))},
			}))
			l.server.serve(t, 80, 0)
			udpAny(t, l.server, 9005)
			l.apply(policy.Enforce)
			l.read()
			c := l.dialDNS("udp", false)
			defer c.Close()
			for _, n := range []string{"a.example.com", "b.example.com", "c.example.com"} {
				ask(t, c, n, dnsmessage.TypeA)
			}
			held, err := l.client.dial("tcp", netip.AddrPortFrom(addr78(1), 80), patience(true))
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			dgram, err := l.client.dial("udp", netip.AddrPortFrom(addr78(3), 9005), patience(true))
			if err != nil {
				t.Fatal(err)
			}
			defer dgram.Close()
			if _, err := dgram.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			sweep := func(now time.Time) {
				t.Helper()
				used, err := l.client.ns.InUse()
				if err == nil {
					err = l.open(l.names.Sweep(func(a netip.Addr) bool { return used[a] }, now))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			sweep(time.Now().Add(flow.NameFloor - time.Second))
			if !l.connects(addr78(2), true) {
				t.Error("closed before its time")
			}
			// A connection just closed is in use as long as the kernel keeps its state.
			testIn(t, l.client.path, "ss", "-K", "dst", addr78(2).String())
			sweep(time.Now().Add(flow.NameFloor + time.Second))
			if l.connects(addr78(2), false) {
				t.Error("an address that nobody uses is open after its time")
			}
			if !exchange(held, []byte("still here"), patience(true)) || !l.connects(addr78(1), true) {
				t.Error("a connection lost its right with the TTL")
			}
			if got := l.names.Of(addr78(3)); len(got) != 1 {
				t.Errorf("an address that datagrams went to has the names %v", got)
			}
			// As after a connection ended: nothing but the table keeps the address.
			if err := l.open(l.names.Sweep(func(netip.Addr) bool { return false }, time.Now().Add(time.Hour))); err != nil {
				t.Fatal(err)
			}
			if exchange(held, []byte("gone"), patience(false)) {
				t.Error("a connection outlived its right")
			}
			if out := testIn(t, l.client.path, "nft", "list", "set", "inet", "bulkhead", "egress4_names"); strings.Contains(out, "10.78") {
				t.Errorf("elements are left:\n%s", out)
			}
		})
	}
}

// TestForgedAnswers: only answers of the workload's resolvers to what it asked teach.
func TestForgedAnswers(t *testing.T) {
	l := newDNSLab(t, true, web...)
	l.zone.serve(fixed(map[string][]dnsmessage.Resource{"a.example.com": {recordA("a.example.com", 5, addr78(1))}}))
	l.server.serve(t, 80, 0)
	l.sides.Egress.Entries = append(l.sides.Egress.Entries, testEntry(l.server.v4.String(), identity.UDP, 53, 53))
	l.apply(policy.Enforce)
	l.read()
	forged := func() []byte {
		z := testZone{of: fixed(map[string][]dnsmessage.Resource{"a.example.com": {recordA("a.example.com", 5, addr78(66))}})}
		return z.answer(question(1, "a.example.com", dnsmessage.TypeA))
	}()
	mine := udpSocket(t, l.client, 5353)
	learned := func(what string) {
		t.Helper()
		if got := l.names.Of(addr78(66)); len(got) > 0 || l.connects(addr78(66), false) {
			t.Errorf("%s taught %s the names %v", what, addr78(66), got)
		}
	}
	// Another server on port 53, that policy lets the workload ask.
	other := udpSocket(t, l.server, 53)
	if _, err := mine.WriteToUDPAddrPort(question(1, "a.example.com", dnsmessage.TypeA), netip.AddrPortFrom(l.server.v4, 53)); err != nil {
		t.Fatal(err)
	}
	if !receives(other, string(question(1, "a.example.com", dnsmessage.TypeA)), true) {
		t.Fatal("the other server was not asked")
	}
	if _, err := other.WriteToUDPAddrPort(forged, netip.AddrPortFrom(l.client.v4, 5353)); err != nil {
		t.Fatal(err)
	}
	if !receives(mine, string(forged), true) {
		t.Error("the other server's answer was not delivered")
	}
	learned("a server that is no resolver of the workload")

	// The resolver, to a port from which nobody asked.
	unasked := udpSocket(t, l.client, 5454)
	if err := Enter(l.resolver.path, func() error { return sendRaw(l.resolver.v4, l.client.v4, 5454, forged) }); err != nil {
		t.Fatal(err)
	}
	if receives(unasked, string(forged), false) {
		t.Error("an answer that nobody asked for was delivered")
	}
	learned("an answer that nobody asked for")

	// Another pod under the resolver's address, to a port that waits for an answer.
	attacker := l.node.workload(t)
	attacker.apply(t, policy.Learn, policy.Sides{})
	c := l.dialDNS("udp", false)
	defer c.Close()
	ask(t, c, "a.example.com", dnsmessage.TypeA)
	port := c.LocalAddr().(*net.UDPAddr).Port
	if err := Enter(attacker.path, func() error { return sendRaw(l.resolver.v4, l.client.v4, uint16(port), forged) }); err != nil {
		t.Fatal(err)
	}
	learned("another pod under the resolver's address")

	// Root in the workload's own namespace, through an interface that it made.
	tun := openTun(t, l.client.path, "tun0")
	testRun(t, "ip", "-n", filepath.Base(l.client.path), "link", "set", "tun0", "up")
	testIn(t, l.client.path, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.tun0.rp_filter=0")
	unseen := l.answers.Stats().Unseen
	if _, err := tun.Write(rawUDP(l.resolver.v4, l.client.v4, uint16(port), forged)); err != nil {
		t.Fatal(err)
	}
	for end := deadline(true); l.answers.Stats().Unseen == unseen; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the packet that was injected never waited in the queue: the test shows nothing")
		}
	}
	learned("root inside the namespace")

	// Through loopback, as anybody with CAP_NET_RAW can.
	if err := Enter(l.client.path, func() error { return sendRaw(l.resolver.v4, l.client.v4, uint16(port), forged) }); err != nil {
		t.Logf("loopback: %v", err)
	}
	learned("a packet over loopback")
	if !l.connects(addr78(1), true) {
		t.Error("what the resolver said is not open")
	}
}

// TestLargeAnswers: of an answer in fragments, what the first one says is learned; where the kernel puts
// it together for us and no guard has the last word, all of it.
func TestLargeAnswers(t *testing.T) {
	for _, guarded := range []bool{true, false} {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("guarded=%v/%s", guarded, familyName(v6)), func(t *testing.T) {
				l := newDNSLab(t, guarded, web...)
				l.zone.serve(func(name string, _ dnsmessage.Type) (out []dnsmessage.Resource) {
					for i := range byte(200) {
						out = append(out, recordA(name, 5, addr78(i)))
					}
					return out
				})
				l.server.serve(t, 80, 0)
				l.apply(policy.Enforce)
				l.read()
				c := l.dialDNS("udp", v6)
				defer c.Close()
				if got := ask(t, c, "big.example.com", dnsmessage.TypeA); len(got) != 200 {
					t.Fatalf("%d addresses delivered", len(got))
				}
				if !l.connects(addr78(0), true) || !l.connects(addr78(50), true) {
					t.Error("what the first fragment says is not open")
				}
				all := !guarded && !v6
				if got := l.connects(addr78(199), all); got != all {
					t.Errorf("the last address is open: %v, want %v", got, all)
				}
				if s := l.answers.Stats(); s.Unseen > 0 {
					t.Errorf("taken for forged: %+v", s)
				}
			})
		}
	}
}
