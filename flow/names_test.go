package flow

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

var dawn = time.Date(2026, 3, 1, 6, 0, 0, 0, time.UTC)

func said(ttl time.Duration, addrs string, names ...string) Answer {
	a := Answer{Names: names}
	for _, x := range strings.Fields(addrs) {
		a.Addrs = append(a.Addrs, AnswerAddr{netip.MustParseAddr(x), len(names) - 1, ttl})
	}
	return a
}

func nobody(netip.Addr) bool { return false }

func (n *Names) list() string {
	var out []string
	for _, k := range n.Known(false) {
		out = append(out, fmt.Sprintf("%s=%s until %s", k.Name, k.Addr, k.Until.Sub(dawn)))
	}
	return strings.Join(out, ", ")
}

func TestNamesTTL(t *testing.T) {
	for _, row := range []struct{ ttl, want time.Duration }{
		{0, NameFloor}, {time.Second, NameFloor}, {5 * time.Minute, 5 * time.Minute}, {1000 * time.Hour, NameCeiling},
	} {
		n := NewNames(NameLimits{})
		n.Learn(said(row.ttl, "192.0.2.1", "a.org"), nil, dawn)
		if want := fmt.Sprintf("a.org=192.0.2.1 until %s", row.want); n.list() != want {
			t.Errorf("TTL %s: %s; want %s", row.ttl, n.list(), want)
		}
	}
	n := NewNames(NameLimits{})
	n.Learn(said(time.Hour, "192.0.2.1", "a.org"), nil, dawn)
	if got := n.Learn(said(time.Second, "192.0.2.1", "a.org"), nil, dawn); len(got) > 0 || n.list() != "a.org=192.0.2.1 until 1h0m0s" {
		t.Errorf("a shorter TTL took something away: %v, %s", got, n.list())
	}
	if got := n.Learn(said(time.Hour, "192.0.2.1", "a.org"), nil, dawn.Add(time.Minute)); len(got) != 1 {
		t.Errorf("a later end is news: %v", got)
	}
}

func TestNamesSweep(t *testing.T) {
	n := NewNames(NameLimits{})
	n.SetPatterns([]string{"*.org"})
	n.Learn(said(time.Minute, "192.0.2.1 192.0.2.2", "a.org"), nil, dawn)
	n.Learn(said(time.Hour, "192.0.2.2", "b.org"), nil, dawn)
	used := func(a netip.Addr) bool { return a == netip.MustParseAddr("192.0.2.1") }
	if got := n.Sweep(nobody, dawn.Add(59*time.Second)); len(got) > 0 {
		t.Errorf("before its time: %v", got)
	}
	got := n.Sweep(used, dawn.Add(61*time.Second))
	if fmt.Sprint(got) != "[192.0.2.1 192.0.2.2]" || n.list() != "a.org=192.0.2.1 until 2m1s, b.org=192.0.2.2 until 1h0m0s" {
		t.Errorf("touched %v, left %s", got, n.list())
	}
	n.Sweep(nobody, dawn.Add(2*time.Hour))
	if n.list() != "" || n.Stats().Pairs != 0 || len(n.Addrs()) > 0 {
		t.Errorf("left: %s", n.list())
	}
}

// TestNamesPatterns: the asked name is kept, and those on the chain that policy names.
func TestNamesPatterns(t *testing.T) {
	n := NewNames(NameLimits{})
	n.SetPatterns([]string{"*.cdn.net", "bank.org"})
	n.Learn(said(time.Minute, "192.0.2.1", "www.a.org", "mid.net", "x.cdn.net"), nil, dawn)
	addr := netip.MustParseAddr("192.0.2.1")
	if got := n.Of(addr); fmt.Sprint(got) != "[www.a.org x.cdn.net]" {
		t.Errorf("names %v", got)
	}
	entries := []policy.NameEntry{
		{Name: "*.cdn.net", Protocol: identity.TCP, Port: 443, EndPort: 443, Rule: "r1"},
		{Name: "bank.org", Protocol: identity.TCP, Port: 22, EndPort: 22, Rule: "r2"},
		{Name: "x.cdn.net", Protocol: identity.TCP, Port: 443, EndPort: 443, Rule: "r3"},
	}
	list, until := n.Openings(addr, entries)
	if len(list) != 1 || list[0].Port != 443 || list[0].Peer != identity.Single(addr) || until != dawn.Add(time.Minute) {
		t.Errorf("open for %+v until %s", list, until)
	}
	if list, _ := n.Openings(netip.MustParseAddr("192.0.2.2"), entries); list != nil {
		t.Errorf("an address without a name is open for %v", list)
	}
	if got := n.Known(true); len(got) != 1 || got[0].Name != "x.cdn.net" {
		t.Errorf("stored %+v", got)
	}
}

func TestNamesOutside(t *testing.T) {
	n := NewNames(NameLimits{})
	public := func(a netip.Addr) bool { return !a.IsPrivate() }
	n.Learn(said(time.Minute, "10.0.0.1 192.0.2.1", "a.org"), public, dawn)
	if n.list() != "a.org=192.0.2.1 until 1m0s" || n.Stats().Outside != 1 {
		t.Errorf("%s, %+v", n.list(), n.Stats())
	}
	if got := n.Keep(nobody); fmt.Sprint(got) != "[192.0.2.1]" || n.list() != "" {
		t.Errorf("kept %s, told %v", n.list(), got)
	}
}

// TestNamesBounds: whoever answers for a wildcard fills its share; what a connection uses stays.
func TestNamesBounds(t *testing.T) {
	n := NewNames(NameLimits{Total: 30, PerPattern: 10})
	n.SetPatterns([]string{"api.org", "*.evil.org"})
	mine, held := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	n.Learn(said(time.Minute, mine.String(), "api.org"), nil, dawn)
	n.Learn(said(time.Minute, held.String(), "x.evil.org"), nil, dawn)
	n.Sweep(func(a netip.Addr) bool { return a == held }, dawn)
	for i := range 1000 {
		now := dawn.Add(time.Duration(i) * time.Second / 10) // two evictions each
		got := n.Learn(said(time.Hour, fmt.Sprintf("10.0.%d.%d", i>>8, i&255), fmt.Sprintf("n%d.evil.org", i)), nil, now)
		if want := 1 + min(1, max(0, i-8)); len(got) != want { // itself, and from then on who gave up its place
			t.Fatalf("answer %d touched %v", i, got)
		}
		n.Learn(said(time.Hour, fmt.Sprintf("10.1.%d.%d", i>>8, i&255), fmt.Sprintf("n%d.unnamed.org", i)), nil, now)
	}
	s := n.Stats()
	if len(n.Of(mine)) != 1 || len(n.Of(held)) != 1 || s.Pairs != 21 || s.Evicted == 0 {
		t.Errorf("%+v: %s", s, n.list())
	}
	// When all are in use, nothing more is taken.
	n.Sweep(func(netip.Addr) bool { return true }, dawn)
	if got := n.Learn(said(time.Hour, "10.9.9.9", "new.evil.org"), nil, dawn); len(got) > 0 || n.Stats().Refused != 1 {
		t.Errorf("touched %v, %+v", got, n.Stats())
	}
	// Too many at once are not taken either.
	n.Sweep(nobody, dawn)
	for i := range 100 {
		n.Learn(said(time.Hour, fmt.Sprintf("10.3.0.%d", i), fmt.Sprintf("m%d.evil.org", i)), nil, dawn.Add(time.Hour))
	}
	if got := n.Stats().Refused; got != 1+100-evictionsPerSecond {
		t.Errorf("refused %d", got)
	}
	// What policy names comes before what it does not name.
	n.SetPatterns([]string{"api.org", "*.evil.org", "*.late.org"})
	n.Sweep(nobody, dawn)
	for i := range 20 {
		n.Learn(said(time.Hour, fmt.Sprintf("10.2.0.%d", i), fmt.Sprintf("n%d.late.org", i)), nil, dawn.Add(2*time.Hour))
	}
	late := slices.DeleteFunc(n.Known(true), func(k KnownName) bool { return !strings.HasSuffix(k.Name, ".late.org") })
	if len(late) != 10 || n.Stats().Pairs > 30 {
		t.Errorf("%d of the late pattern; %+v", len(late), n.Stats())
	}
}

func TestNamesStored(t *testing.T) {
	n := NewNames(NameLimits{})
	n.SetPatterns([]string{"*.org"})
	n.Learn(said(time.Hour, "192.0.2.1 2001:db8::1", "a.org"), nil, dawn)
	before := n.Version()
	raw, err := json.Marshal(n.Known(true))
	if err != nil {
		t.Fatal(err)
	}
	var back []KnownName
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	m := NewNames(NameLimits{})
	m.Restore(back, dawn)
	m.SetPatterns([]string{"*.org"})
	if m.list() != n.list() || len(m.Known(true)) != 2 {
		t.Errorf("%s, was %s", m.list(), n.list())
	}
	if n.Version() != before {
		t.Error("looking changed something")
	}
	// The clock was set back by days: no name lasts longer than one.
	m = NewNames(NameLimits{})
	m.Restore(back, dawn.Add(-100*time.Hour))
	if m.list() != "a.org=192.0.2.1 until -76h0m0s, a.org=2001:db8::1 until -76h0m0s" {
		t.Error(m.list())
	}
}
