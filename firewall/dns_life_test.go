package firewall

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// threeNames have an address each.
func threeNames() func(string, dnsmessage.Type) []dnsmessage.Resource {
	return fixed(map[string][]dnsmessage.Resource{
		"a.example.com": {recordA("a.example.com", 5, addr78(1))},
		"b.example.com": {recordA("b.example.com", 5, addr78(2))},
		"c.example.com": {recordA("c.example.com", 5, addr78(3))},
	})
}

// answered says whether a question is answered within a patience.
func (l *dnsLab) answered(name string, want bool) bool {
	c := l.dialDNS("udp", false)
	defer c.Close()
	_ = c.SetDeadline(deadline(want))
	if _, err := c.Write(question(1, name, dnsmessage.TypeA)); err != nil {
		return false
	}
	_, err := c.Read(make([]byte, 512))
	return err == nil
}

// TestNobodyReads: the daemon is away. Answers pass unread, or are dropped where that was chosen; what
// was learned stays open.
func TestNobodyReads(t *testing.T) {
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprintf("closed=%v", closed), func(t *testing.T) {
			l := newDNSLab(t, true, web...)
			l.closed = closed
			l.zone.serve(threeNames())
			l.server.serve(t, 80, 0)
			l.apply(policy.Enforce)
			l.read()
			if !l.answered("a.example.com", true) || !l.connects(addr78(1), true) {
				t.Fatal("not open after its answer")
			}
			l.stop()
			if got := l.answered("b.example.com", !closed); got == closed {
				t.Errorf("answered %v with nobody to read", got)
			}
			if l.connects(addr78(2), false) {
				t.Error("an answer that nobody read opened something")
			}
			if !l.connects(addr78(1), true) {
				t.Error("what was learned before is closed")
			}
			l.read()
			if !l.answered("b.example.com", true) || !l.connects(addr78(2), true) {
				t.Error("not open after the daemon is back")
			}
		})
	}
}

// TestNotInForce: an answer whose addresses could not be put in the sets.
func TestNotInForce(t *testing.T) {
	for _, closed := range []bool{false, true} {
		l := newDNSLab(t, true, web...)
		l.closed = closed
		l.zone.serve(threeNames())
		l.apply(policy.Enforce)
		l.fail = errors.New("no")
		l.read()
		if got := l.answered("a.example.com", !closed); got == closed {
			t.Errorf("closed=%v: answered %v", closed, got)
		}
		if n := l.answers.Stats().Failed; n == 0 {
			t.Error("not counted")
		}
	}
}

// TestNamesSurvive: the next daemon takes over what was learned, connections go on, and what somebody
// put in the sets meanwhile is gone.
func TestNamesSurvive(t *testing.T) {
	l := newDNSLab(t, true, web...)
	l.zone.serve(threeNames())
	l.server.serve(t, 80, 0)
	l.apply(policy.Enforce)
	l.read()
	if !l.answered("a.example.com", true) {
		t.Fatal("no answer")
	}
	held, err := l.client.dial("tcp", netip.AddrPortFrom(addr78(1), 80), patience(true))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	l.stop()
	known := l.names.Known(true)
	if err := l.client.ns.Close(); err != nil {
		t.Fatal(err)
	}
	if !exchange(held, []byte("nobody owns the rules"), patience(true)) {
		t.Error("the connection died with the daemon")
	}
	testIn(t, l.client.path, "nft", "add", "element", "inet", "bulkhead", "egress4_names", "{ 10.78.0.9 . tcp . 80 }")

	l.client.ns = nil
	l.client.open(t)
	l.names = flow.NewNames(flow.NameLimits{})
	l.names.SetPatterns([]string{"*.example.com"})
	l.names.Restore(known, time.Now())
	if err := l.open(l.names.Addrs()); err != nil {
		t.Fatal(err)
	}
	l.apply(policy.Enforce)
	if !exchange(held, []byte("taken over"), patience(true)) || !l.connects(addr78(1), true) {
		t.Error("the next daemon cut what was allowed")
	}
	if l.connects(addr78(9), false) {
		t.Error("an element of somebody else's still opens something")
	}
	// Names go from policy: what stood on them ends.
	l.name(nil)
	l.apply(policy.Enforce)
	if exchange(held, []byte("gone"), patience(false)) {
		t.Error("the connection outlived the policy that allowed it")
	}
}

// TestNamesRevoked: policy names another port: the openings change, and connections with them.
func TestNamesRevoked(t *testing.T) {
	l := newDNSLab(t, true, web...)
	l.zone.serve(threeNames())
	l.server.serve(t, 80, 0)
	l.server.serve(t, 81, 0)
	l.apply(policy.Enforce)
	l.read()
	if !l.answered("a.example.com", true) {
		t.Fatal("no answer")
	}
	held, err := l.client.dial("tcp", netip.AddrPortFrom(addr78(1), 80), patience(true))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	l.name([]policy.NameEntry{{Name: "a.example.com", Protocol: identity.TCP, Port: 81, EndPort: 90}})
	if err := l.open(l.names.Addrs()); err != nil {
		t.Fatal(err)
	}
	l.apply(policy.Enforce)
	if exchange(held, []byte("gone"), patience(false)) || l.connects(addr78(1), false) {
		t.Error("port 80 is open although policy names it no more")
	}
	if !l.client.talks("tcp", netip.AddrPortFrom(addr78(1), 81), patience(true)) {
		t.Error("the new port is not open")
	}
}

// TestNamesInOtherModes: learn knows names when enforce comes, and alert tells of what no name opens.
func TestNamesInOtherModes(t *testing.T) {
	l := newDNSLab(t, true, web...)
	l.zone.serve(threeNames())
	l.server.serve(t, 80, 0)
	l.apply(policy.Learn)
	l.read()
	if !l.answered("a.example.com", true) || !l.connects(addr78(1), true) {
		t.Fatal("mode learn is not open")
	}
	r, err := NewReader(ReaderConfig{Namespace: l.client.path, Workload: "client"})
	if err != nil {
		t.Fatal(err)
	}
	records := testRecords(t, r)
	l.apply(policy.AlertMode)
	for _, a := range []netip.Addr{addr78(1), addr78(2)} {
		if !l.connects(a, true) {
			t.Errorf("%s: no answer in mode alert", a)
		}
	}
	// The first was told of in mode learn already; an alert about it would come before the second's.
	for {
		rec := testNext(t, records)
		if rec.Server == addr78(1) && rec.Verdict == policy.Alert {
			t.Errorf("alert about what a name opens: %+v", rec)
		}
		if rec.Server == addr78(2) {
			if rec.Verdict != policy.Alert {
				t.Errorf("told %s about what no name opens", rec.Verdict)
			}
			break
		}
	}
	l.apply(policy.Enforce)
	if !l.connects(addr78(1), true) || l.connects(addr78(2), false) {
		t.Error("mode enforce does not know what was learned before")
	}
}

// TestNamesDenied: what policy denies, no name opens.
func TestNamesDenied(t *testing.T) {
	l := newDNSLab(t, true, web...)
	l.zone.serve(threeNames())
	l.server.serve(t, 80, 0)
	l.sides.Egress.Denied = []policy.Entry{testEntry("10.78.0.0/31", identity.TCP, 80, 80)}
	l.apply(policy.Enforce)
	l.read()
	if !l.answered("a.example.com", true) || !l.answered("b.example.com", true) {
		t.Fatal("no answer")
	}
	if l.connects(addr78(1), false) || !l.connects(addr78(2), true) {
		t.Error("a deny does not win over a name")
	}
}

// TestLargeDatagramsToNames: later fragments pass to an address that has a name.
func TestLargeDatagramsToNames(t *testing.T) {
	l := newDNSLab(t, true, web...)
	l.zone.serve(threeNames())
	l.apply(policy.Enforce)
	l.read()
	got := make(chan int, 1)
	err := Enter(l.server.path, func() error {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 9001})
		if err != nil {
			return err
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			n, _ := c.Read(make([]byte, 65536))
			got <- n
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !l.answered("a.example.com", true) {
		t.Fatal("no answer")
	}
	c, err := l.client.dial("udp", netip.AddrPortFrom(addr78(1), 9001), patience(true))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(strings.Repeat("x", 4000))); err != nil {
		t.Fatal(err)
	}
	select {
	case n := <-got:
		if n != 4000 {
			t.Errorf("%d bytes", n)
		}
	case <-time.After(patience(true)):
		t.Error("a datagram in fragments was lost")
	}
}

// TestNamesAreBounded: whoever answers for a wildcard fills its share of the kernel's sets and no more.
func TestNamesAreBounded(t *testing.T) {
	l := newDNSLab(t, true, web...)
	l.names = flow.NewNames(flow.NameLimits{PerPattern: 20})
	l.names.SetPatterns([]string{"*.example.com"})
	l.apply(policy.Enforce)
	for i := range 100 {
		a := flow.Answer{Names: []string{fmt.Sprintf("x%d.example.com", i)}}
		for j := range 10 {
			a.Addrs = append(a.Addrs, flow.AnswerAddr{Addr: netip.AddrFrom4([4]byte{10, 78, byte(i), byte(j)}), TTL: time.Hour})
		}
		if err := l.learn(a); err != nil {
			t.Fatal(err)
		}
	}
	inside := testIn(t, l.client.path, "nft", "list", "set", "inet", "bulkhead", "egress4_names")
	guard := testIn(t, l.node.path, "nft", "list", "set", "netdev", "bulkhead-"+l.client.ifc.Host, "egress4_names")
	for _, out := range []string{inside, guard} {
		if n := strings.Count(out, "10.78."); n != 20 {
			t.Errorf("%d elements, want the 20 of the bound", n)
		}
		if !strings.Contains(out, "expires") || slices.ContainsFunc(strings.Split(out, ","), func(e string) bool {
			return strings.Contains(e, "10.78.") && !strings.Contains(e, "expires")
		}) {
			t.Errorf("elements that do not end:\n%s", out)
		}
	}
}
