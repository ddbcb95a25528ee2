package flow

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// TestNamedEdge: an edge to the world remembers by which names it was looked up, on disk and in what is
// generated from it; many addresses folded to one edge give none.
func TestNamedEdge(t *testing.T) {
	h := newHamlet()
	h.pod("shop/web-1", "app=web", "10.1.0.10")
	web, g := netip.MustParseAddr("10.1.0.10"), NewGraph(Limits{WorldAddrs: 3})
	call := func(to string, names ...string) Key {
		s := netip.MustParseAddr(to)
		r := Record{Time: morning, Event: Birth, Direction: policy.Egress, Client: web, Server: s, Protocol: identity.TCP, Port: 443, Verdict: policy.Allow, Count: 1}
		sighting, _ := g.Observe(r, h.view.Peer(web), h.view.Peer(s), nil)
		g.Named(sighting.Key, names, r.Time)
		return sighting.Key
	}
	k := call("198.51.100.7", "api.example.com", "a.cdn.example.net")
	g.Dirty()
	call("198.51.100.7", "api.example.com")
	call("198.51.100.7", "b.example.com", "c.example.com", "d.example.com", "e.example.com")
	if changed, _ := g.Dirty(); len(changed) != 1 {
		t.Errorf("%d edges to be stored", len(changed))
	}
	e, _ := g.Edge(k)
	if got := fmt.Sprint(e.NameList()); got != "[a.cdn.example.net api.example.com b.example.com c.example.com]" || !e.Names.More {
		t.Errorf("names %s, more %v", got, e.Names.More)
	}
	raw, err := EncodeEdge(e)
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeEdge(raw)
	if err != nil || fmt.Sprint(back.NameList()) != fmt.Sprint(e.NameList()) {
		t.Errorf("stored %v, %v", back.NameList(), err)
	}
	text, err := Render(Suggest(g.Edges(), h.view, Options{}))
	if err != nil || !strings.Contains(string(text), "198.51.100.7 (a.cdn.example.net, api.example.com, b.example.com and others) TCP/443") {
		t.Errorf("%v\n%s", err, text)
	}
	for i := range 4 {
		k = call(fmt.Sprintf("198.51.100.%d", 20+i), "x.example.com")
	}
	if e, _ := g.Edge(k); e.NameList() != nil {
		t.Errorf("a folded edge has the names %v", e.NameList())
	}
}
