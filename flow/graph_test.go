package flow

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

var compareAddrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// TestGraph: a history, and the edges it folds to, whatever the order of its records.
func TestGraph(t *testing.T) {
	node := identity.Peer{Kind: identity.Node, Addr: netip.MustParseAddr("10.1.0.1")}
	dns := identity.Peer{Kind: identity.Resolver, Addr: netip.MustParseAddr("169.254.20.10")}
	tests := []struct {
		name    string
		history func(w *town)
		want    []string
	}{
		{"both ends report: counted once", func(w *town) {
			web, db := peerOf(w.pod("shop", "web", 1)), peerOf(w.pod("shop", "db", 1))
			w.call(web, db, identity.TCP, 5432)
			w.call(web, db, identity.TCP, 5432)
		}, []string{"shop/web → shop/db TCP/5432 ×2"}},

		{"one end reports: the other runs elsewhere", func(w *town) {
			w.half(policy.Egress, peerOf(w.pod("shop", "web", 1)), peerOf(w.pod("shop", "db", 1)), identity.TCP, 5432, policy.Allow)
		}, []string{"shop/web → shop/db TCP/5432 ×1"}},

		{"a server on 50051 called by 200 clients: one edge, no ephemeral port", func(w *town) {
			for i := range 200 {
				w.call(peerOf(w.pod("shop", "web", i)), peerOf(w.pod("shop", "pay", 1)), identity.TCP, 50051)
			}
		}, []string{"shop/web → shop/pay TCP/50051 ×200"}},

		{"through a virtual address 80 to 8080: the backend's service and port", func(w *town) {
			mail := w.pod("shop", "mail", 1)
			w.call(peerOf(w.pod("shop", "web", 1)), w.vip("10.96.0.7", "shop/mail", identity.TCP, 80, 8080, mail, w.pod("shop", "mail", 2)), identity.TCP, 80)
		}, []string{"shop/web → shop/mail TCP/8080 ×1"}},

		{"two services behind one virtual address: policy must allow both", func(w *town) {
			v := w.vip("10.96.0.8", "shop/details", identity.TCP, 80, 9080, w.pod("shop", "details-v1", 1))
			w.vip("10.96.0.8", "shop/details", identity.TCP, 80, 9081, w.pod("shop", "details-v2", 1))
			w.call(peerOf(w.pod("shop", "web", 1)), v, identity.TCP, 80)
		}, []string{"shop/web → shop/details-v1 TCP/9080 ×1", "shop/web → shop/details-v2 TCP/9081 ×1"}},

		{"a virtual address with nothing behind it keeps its name and port", func(w *town) {
			w.half(policy.Egress, peerOf(w.pod("shop", "web", 1)), w.vip("10.96.0.9", "shop/gone", identity.TCP, 80, 0), identity.TCP, 80, policy.Allow)
		}, []string{"shop/web → shop/gone TCP/80 ×1"}},

		{"node, resolver, network and world are named", func(w *town) {
			web := peerOf(w.pod("shop", "web", 1))
			w.call(node, web, identity.TCP, 8080)
			w.call(web, dns, identity.UDP, 53)
			w.call(web, identity.Peer{Kind: identity.Network, Network: "office", Addr: netip.MustParseAddr("192.0.2.9")}, identity.TCP, 25)
			w.call(web, worldPeer("198.51.100.7"), identity.TCP, 443)
			w.call(worldPeer("203.0.113.5"), web, identity.TCP, 8080)
			w.call(web, worldPeer("2001:db8::7"), identity.ICMPv6, 128)
		}, []string{
			"shop/web → dns UDP/53 ×1",
			"shop/web → office TCP/25 ×1",
			"shop/web → 198.51.100.7 TCP/443 ×1",
			"shop/web → 2001:db8::7 ICMPv6/128 ×1",
			"node → shop/web TCP/8080 ×1",
			"203.0.113.5 → shop/web TCP/8080 ×1",
		}},

		{"denied births never grow the allowed count", func(w *town) {
			web, db := peerOf(w.pod("shop", "web", 1)), peerOf(w.pod("shop", "db", 1))
			w.half(policy.Egress, web, db, identity.TCP, 22, policy.Deny)
			w.half(policy.Egress, web, db, identity.TCP, 5432, policy.Allow)
			w.half(policy.Egress, web, db, identity.TCP, 23, policy.Alert)
			w.half(policy.Ingress, web, db, identity.TCP, 23, policy.Alert)
		}, []string{
			"shop/web → shop/db TCP/22 ×0 denied 1",
			"shop/web → shop/db TCP/23 ×0 alert 1",
			"shop/web → shop/db TCP/5432 ×1",
		}},

		{"the client lets it out, the server refuses it: not allowed", func(w *town) {
			web, db := peerOf(w.pod("shop", "web", 1)), peerOf(w.pod("shop", "db", 1))
			w.half(policy.Egress, web, db, identity.TCP, 22, policy.Allow)
			w.half(policy.Ingress, web, db, identity.TCP, 22, policy.Deny)
			w.half(policy.Egress, web, db, identity.TCP, 23, policy.Alert)
			w.half(policy.Ingress, web, db, identity.TCP, 23, policy.Allow)
		}, []string{
			"shop/web → shop/db TCP/22 ×0 denied 1",
			"shop/web → shop/db TCP/23 ×0 alert 1",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newTown(t)
			tt.history(w)
			want := replay(t, w.log, Limits{}).Edges()
			if diff := cmp.Diff(tt.want, lines(want)); diff != "" {
				t.Errorf("edges (-want +got):\n%s", diff)
			}
			for name, log := range arrangements(w.log) {
				if diff := cmp.Diff(want, replay(t, log, Limits{}).Edges(), compareAddrs); diff != "" {
					t.Errorf("%s: edges differ:\n%s", name, diff)
				}
			}
		})
	}
}

// TestNotAnEdge: records that must not make or grow an edge.
func TestNotAnEdge(t *testing.T) {
	w := newTown(t)
	web, db := peerOf(w.pod("shop", "web", 1)), peerOf(w.pod("shop", "db", 1))
	w.call(web, db, identity.TCP, 5432)
	good := w.log[0].record
	tests := []struct {
		name    string
		change  func(r *Record)
		unsided uint64
	}{
		{"seen first in mid-connection: nobody knows who opened it", func(r *Record) { r.Direction = 0 }, 1},
		{"no server port", func(r *Record) { r.Port = 0 }, 1},
		{"no client address", func(r *Record) { r.Client = netip.Addr{} }, 1},
		{"spoofed frame", func(r *Record) { r.Event = Spoof }, 0},
		{"raw frame", func(r *Record) { r.Event = Raw }, 0},
		{"counters of an edge that was never born", func(r *Record) { r.Event, r.Count = Usage, 9 }, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := NewGraph(Limits{})
			r := good
			tt.change(&r)
			if s, ok := g.Observe(r, web, db, nil); ok {
				t.Errorf("made %v", s)
			}
			if n := len(g.Edges()); n != 0 || g.Stats().Unsided != tt.unsided {
				t.Errorf("%d edges, %d unsided; want 0 and %d", n, g.Stats().Unsided, tt.unsided)
			}
		})
	}
}

func TestUsageGrowsWhatWasBorn(t *testing.T) {
	w := newTown(t)
	web, db := peerOf(w.pod("shop", "web", 1)), peerOf(w.pod("shop", "db", 1))
	w.call(web, db, identity.TCP, 5432)
	g := replay(t, w.log, Limits{})
	use := w.log[0].record
	use.Event, use.Time, use.Count, use.Bytes = Usage, morning.Add(time.Hour), 41, 9000
	if s, ok := g.Observe(use, web, db, nil); !ok || s.New {
		t.Fatalf("Observe = %v, %v; want a known edge", s, ok)
	}
	e := g.Edges()[0]
	if e.Count() != 42 || e.Bytes() != 9000 || !e.Last.Equal(use.Time) || !e.First.Equal(w.log[0].record.Time) {
		t.Errorf("count %d, bytes %d, %v to %v", e.Count(), e.Bytes(), e.First, e.Last)
	}
}

func TestNewIsSaidOnce(t *testing.T) {
	w := newTown(t)
	web, db := peerOf(w.pod("shop", "web", 1)), peerOf(w.pod("shop", "db", 1))
	w.half(policy.Egress, web, db, identity.TCP, 5432, policy.Deny)
	w.half(policy.Egress, web, db, identity.TCP, 5432, policy.Deny)
	w.half(policy.Egress, web, db, identity.TCP, 5432, policy.Allow)
	w.half(policy.Ingress, web, db, identity.TCP, 5432, policy.Allow)
	g := NewGraph(Limits{})
	var got []bool
	for _, e := range w.log {
		s, _ := g.Observe(e.record, e.client, e.server, nil)
		got = append(got, s.New)
	}
	if want := []bool{true, false, true, false}; !slices.Equal(got, want) {
		t.Errorf("New = %v, want %v: first sight, and first allowed", got, want)
	}
}

// TestWorldFolds: too many outside addresses at one port become one edge, the same in every order.
func TestWorldFolds(t *testing.T) {
	w := newTown(t)
	web := peerOf(w.pod("shop", "web", 1))
	for i := range 300 {
		w.call(web, worldPeer(fmt.Sprintf("198.51.%d.%d", i/100, i%100)), identity.TCP, 443)
	}
	for i := range 256 {
		w.call(web, worldPeer(fmt.Sprintf("198.51.%d.%d", i/100, i%100)), identity.TCP, 80)
	}
	want := replay(t, w.log, Limits{}).Edges()
	if len(want) != 257 || want[len(want)-1].String() != "shop/web → world TCP/443" && want[0].String() != "shop/web → world TCP/443" {
		t.Fatalf("%d edges, want 256 at port 80 and one of the world at 443: %v", len(want), lines(want)[:2])
	}
	for name, log := range arrangements(w.log) {
		g := replay(t, log, Limits{})
		if diff := cmp.Diff(want, g.Edges(), compareAddrs); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if got := g.Stats().Folded; got != 1 {
			t.Errorf("%s: folded %d groups, want 1", name, got)
		}
	}
	k := Key{Client: EndOf(web), Server: End{Addr: netip.MustParseAddr("198.51.0.1")}, Protocol: identity.TCP, Port: 443}
	g := replay(t, w.log, Limits{})
	if e, ok := g.Edge(k); !ok || e.Count() != 300 {
		t.Errorf("Edge of one folded address = %v, %v; want the world's 300", e.Count(), ok)
	}
}

// TestBounds: one client's scan fills its own account and not another's, and is counted.
func TestBounds(t *testing.T) {
	w := newTown(t)
	evil, web, db := peerOf(w.pod("shop", "evil", 1)), peerOf(w.pod("shop", "web", 1)), peerOf(w.pod("shop", "db", 1))
	for port := uint16(1); port <= 500; port++ {
		w.call(evil, db, identity.TCP, port)
	}
	for port := uint16(1); port <= 500; port++ {
		w.call(worldPeer("203.0.113.5"), db, identity.TCP, port)
	}
	w.call(web, db, identity.TCP, 5432)
	g := replay(t, w.log, Limits{PerClient: 100})
	if s := g.Stats(); s.Edges != 201 || s.Refused != 400*2+400 {
		t.Errorf("stats %+v; want 100 edges of each scanner, 1 honest, and 1200 records refused", s)
	}
	if _, ok := g.Edge(Key{EndOf(web), EndOf(db), identity.TCP, 5432}); !ok {
		t.Error("the honest edge was lost to the scan")
	}
	g = replay(t, w.log, Limits{Edges: 50})
	if s := g.Stats(); s.Edges != 50 || s.Refused == 0 {
		t.Errorf("stats %+v; want 50 edges and the rest counted", s)
	}
}

func TestEarliestNamesTheFirst(t *testing.T) {
	w := newTown(t)
	for i := range 40 {
		w.call(peerOf(w.pod("shop", "web", i)), peerOf(w.pod("shop", "db", 1)), identity.TCP, 5432)
	}
	for name, log := range arrangements(w.log) {
		e := replay(t, log, Limits{Workloads: 3}).Edges()[0]
		var got []string
		for _, it := range e.Clients.Items {
			got = append(got, it.What.String())
		}
		if s := strings.Join(got, " "); s != "shop/web-0 shop/web-1 shop/web-2" || !e.Clients.More {
			t.Errorf("%s: clients %q, more %v", name, s, e.Clients.More)
		}
	}
}

// TestStoreGivesTheSameGraph: dirty edges written at random moments and read back, folds included.
func TestStoreGivesTheSameGraph(t *testing.T) {
	w := newTown(t)
	web, db := w.pod("shop", "web", 1), w.pod("shop", "db", 1)
	for i := range 40 {
		w.call(peerOf(web), worldPeer(fmt.Sprintf("198.51.100.%d", i)), identity.TCP, uint16(443+i/30))
		w.call(peerOf(web), w.vip("10.96.0.7", "shop/db", identity.TCP, 80, 5432, db), identity.TCP, 80)
	}
	w.half(policy.Egress, peerOf(web), peerOf(db), identity.TCP, 22, policy.Deny)
	lim := Limits{WorldAddrs: 20}
	disk := map[string][]byte{}
	g := NewGraph(lim)
	save := func() {
		changed, removed := g.Dirty()
		for _, k := range removed {
			delete(disk, k.ID())
		}
		for _, e := range changed {
			data, err := EncodeEdge(e)
			if err != nil {
				t.Fatal(err)
			}
			disk[e.Key.ID()] = data
		}
	}
	for i, e := range w.log {
		g.Observe(e.record, e.client, e.server, e.backends)
		if i%7 == 0 {
			save()
		}
	}
	changed, removed := g.Dirty()
	g.Redo(changed, removed) // the disk was full
	save()
	if c, r := g.Dirty(); len(c)+len(r) != 0 {
		t.Errorf("%d changed and %d removed right after a save", len(c), len(r))
	}
	var back []Edge
	for _, data := range disk {
		e, err := DecodeEdge(data)
		if err != nil {
			t.Fatal(err)
		}
		back = append(back, e)
	}
	g2 := NewGraph(lim)
	g2.Restore(back)
	if diff := cmp.Diff(g.Edges(), g2.Edges(), compareAddrs); diff != "" {
		t.Errorf("restored graph differs:\n%s", diff)
	}
	if c, _ := g2.Dirty(); len(c) != 0 {
		t.Errorf("%d edges dirty after Restore", len(c))
	}
	for _, e := range w.log {
		s, ok := g2.Observe(e.record, e.client, e.server, e.backends)
		if s.New || !ok {
			t.Fatalf("%v is new to the restored graph", s.Key)
		}
	}
}

func TestKnownEdgeCostsNoMemory(t *testing.T) {
	w := newTown(t)
	db := w.pod("shop", "db", 1)
	w.call(peerOf(w.pod("shop", "web", 1)), w.vip("10.96.0.7", "shop/db", identity.TCP, 80, 5432, db, w.pod("shop", "db", 2)), identity.TCP, 80)
	g := replay(t, w.log, Limits{})
	if n := testing.AllocsPerRun(100, func() {
		for _, e := range w.log {
			g.Observe(e.record, e.client, e.server, e.backends)
		}
	}); n != 0 {
		t.Errorf("%v allocations for known edges, want 0", n)
	}
}

func BenchmarkObserveKnown(b *testing.B) {
	w := newTown(b)
	w.call(peerOf(w.pod("shop", "web", 1)), peerOf(w.pod("shop", "db", 1)), identity.TCP, 5432)
	g := replay(b, w.log, Limits{})
	b.ReportAllocs()
	for b.Loop() {
		e := &w.log[0]
		g.Observe(e.record, e.client, e.server, nil)
	}
}

func FuzzDecodeEdge(f *testing.F) {
	w := newTown(f)
	w.call(peerOf(w.pod("shop", "web", 1)), w.vip("10.96.0.7", "shop/db", identity.TCP, 80, 5432, w.pod("shop", "db", 1)), identity.TCP, 80)
	w.call(peerOf(w.pod("shop", "web", 1)), worldPeer("2001:db8::1"), identity.SCTP, 443)
	for _, e := range replay(f, w.log, Limits{}).Edges() {
		data, err := EncodeEdge(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"v":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := DecodeEdge(data)
		if err != nil {
			return
		}
		g := NewGraph(Limits{})
		g.Restore([]Edge{e, e})
		if _, err := EncodeEdge(e); err != nil && e.First.Year() < 10000 && e.Last.Year() < 10000 {
			t.Errorf("decoded but does not encode: %v", err)
		}
	})
}
