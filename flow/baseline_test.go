package flow

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

func service(name string) identity.Service { return identity.Service{Namespace: "shop", Name: name} }

func edgeKey(client, server string, port uint16) Key {
	return Key{End{Kind: identity.Pod, Service: service(client)}, End{Kind: identity.Pod, Service: service(server)}, identity.TCP, port}
}

// TestBaseline: what is learned while open, and what breaks it once locked.
func TestBaseline(t *testing.T) {
	call := func(c, s string, port uint16) Sighting { return Sighting{Key: edgeKey(c, s, port), New: true} }
	tests := []struct {
		name   string
		do     func(b *Baseline)
		see    Sighting
		breaks string // service whose baseline is broken; empty: known
	}{
		{"everything open: nothing can be broken", func(*Baseline) {}, call("web", "db", 5432), ""},
		{"learned, then locked", func(b *Baseline) {
			b.Learn(call("web", "db", 5432), morning)
			b.Lock(service("web"), morning)
			b.Lock(service("db"), morning)
		}, call("web", "db", 5432), ""},
		{"another port after the lock", func(b *Baseline) {
			b.Learn(call("web", "db", 5432), morning)
			b.Lock(service("db"), morning)
		}, call("web", "db", 22), "shop/db"},
		{"a new client after the lock", func(b *Baseline) {
			b.Learn(call("web", "db", 5432), morning)
			b.Lock(service("db"), morning)
		}, call("evil", "db", 5432), "shop/db"},
		{"the locked client's side", func(b *Baseline) { b.Lock(service("web"), morning) }, call("web", "db", 22), "shop/web"},
		{"a locked service learns nothing, whatever the other end does", func(b *Baseline) {
			b.Lock(service("db"), morning)
			b.Learn(call("web", "db", 22), morning)
		}, call("web", "db", 22), "shop/db"},
		{"accepted by hand although locked", func(b *Baseline) {
			b.Lock(service("db"), morning)
			b.Accept(edgeKey("web", "db", 22), morning)
		}, call("web", "db", 22), ""},
		{"opened again", func(b *Baseline) {
			b.Lock(service("db"), morning)
			b.Open(service("db"))
		}, call("web", "db", 22), ""},
		{"one of several backends is not known", func(b *Baseline) {
			b.Learn(call("web", "db", 1), morning)
			b.Lock(service("web"), morning)
		}, Sighting{Key: edgeKey("web", "db", 1), More: []Key{edgeKey("web", "db", 2)}}, "shop/web"},
		{"all backends were learned together", func(b *Baseline) {
			b.Learn(Sighting{Key: edgeKey("web", "db", 1), More: []Key{edgeKey("web", "db", 2)}}, morning)
			b.Lock(service("web"), morning)
		}, call("web", "db", 2), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := NewBaseline(Limits{})
			tt.do(b)
			svc, known := b.Knows(tt.see)
			got := ""
			if !known {
				got = svc.String()
			}
			if got != tt.breaks {
				t.Errorf("breaks %q, want %q", got, tt.breaks)
			}
		})
	}
}

// TestFirstOutsideAddressIsNew: an address of the world is known by itself, until so many were
// learned that the world as such is.
func TestFirstOutsideAddressIsNew(t *testing.T) {
	web := End{Kind: identity.Pod, Service: service("web")}
	to := func(i int) Sighting {
		return Sighting{Key: Key{web, EndOf(worldPeer(fmt.Sprintf("198.51.100.%d", i))), identity.TCP, 443}}
	}
	b := NewBaseline(Limits{})
	b.Learn(to(1), morning)
	b.Lock(service("web"), morning)
	if _, known := b.Knows(to(1)); !known {
		t.Error("the address that was learned is new")
	}
	if _, known := b.Knows(to(2)); known {
		t.Error("the very first connection to a new outside address is known")
	}
	flood := to(1)
	flood.Folded = true // somebody made the graph fold after the lock: what was learned stays known
	if _, known := b.Knows(flood); !known {
		t.Error("a learned address became new by folding")
	}
	b.Open(service("web"))
	folded := to(3)
	folded.Folded = true
	b.Learn(folded, morning)
	b.Lock(service("web"), morning)
	if _, known := b.Knows(to(4)); !known {
		t.Error("an address is new although the world was learned")
	}
}

// TestBaselineOrder: sightings in every arrangement give the same baseline, and it survives a store.
func TestBaselineOrder(t *testing.T) {
	w := newTown(t)
	for i := range 20 {
		w.call(peerOf(w.pod("shop", "web", i)), peerOf(w.pod("shop", "db", 1)), identity.TCP, uint16(5432+i%3))
		w.call(worldPeer("203.0.113.5"), peerOf(w.pod("shop", "web", i)), identity.TCP, 8080)
	}
	learn := func(log []event) *Baseline {
		g, b := NewGraph(Limits{}), NewBaseline(Limits{})
		for _, e := range log {
			if s, ok := g.Observe(e.record, e.client, e.server, nil); ok {
				b.Learn(s, e.record.Time)
			}
		}
		return b
	}
	want := learn(w.log)
	if n := len(want.All()); n != 4 {
		t.Fatalf("%d known edges, want 4", n)
	}
	for name, log := range arrangements(w.log) {
		if diff := cmp.Diff(want.All(), learn(log).All(), compareAddrs); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	var stored []Known
	for _, e := range want.Dirty() {
		data, err := EncodeKnown(e)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeKnown(data)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, back)
	}
	b := NewBaseline(Limits{})
	b.Restore(stored)
	if diff := cmp.Diff(want.All(), b.All(), compareAddrs); diff != "" {
		t.Errorf("restored: %s", diff)
	}
	if n := len(b.Dirty()); n != 0 {
		t.Errorf("%d dirty after Restore", n)
	}
	if n := len(b.Of(service("db"))); n != 3 {
		t.Errorf("baseline of shop/db holds %d, want 3", n)
	}
}

func TestBaselineIsBounded(t *testing.T) {
	b := NewBaseline(Limits{PerClient: 10})
	for port := uint16(1); port <= 100; port++ {
		b.Learn(Sighting{Key: edgeKey("evil", "db", port)}, morning)
	}
	b.Learn(Sighting{Key: edgeKey("web", "db", 5432)}, morning.Add(time.Minute))
	if n := len(b.All()); n != 11 || b.Refused() != 90 {
		t.Errorf("%d known, %d refused; want 11 and 90", n, b.Refused())
	}
}

func FuzzDecodeKnown(f *testing.F) {
	data, err := EncodeKnown(Known{edgeKey("web", "db", 5432), Learned, morning, true, false})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := DecodeKnown(data)
		if err != nil {
			return
		}
		b := NewBaseline(Limits{})
		b.Restore([]Known{e})
		b.Knows(Sighting{Key: e.Key})
	})
}
