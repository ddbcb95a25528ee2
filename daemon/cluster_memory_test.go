package daemon

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/gossip"
	"github.com/bulkhead-firewall/bulkhead/identity"
)

// What a remote workload costs in memory: in the replicated state, and in the index that names its
// addresses. 100,000 of 1,000 nodes, in 2,000 services.
func BenchmarkEndpointMemory(b *testing.B) {
	const nodes, each = 1000, 100
	for range b.N {
		start := heap()
		state := gossip.NewState(gossip.StateConfig{Node: "me", Key: keyNumber(nodes), Now: time.Now, Broadcast: func(string, []byte, []byte) {}})
		for n := range nodes {
			receiveBook(b, state, n, each)
		}
		replicated := heap()
		index := identity.NewIndex("me")
		for _, owner := range state.Owners() {
			for _, e := range state.Entries(owner, gossip.Endpoints) {
				w, err := decodeEndpoint(owner, e.Key, e.Value)
				if err != nil {
					b.Fatal(err)
				}
				index.Upsert(w)
			}
		}
		index.View()
		named := heap()
		b.ReportMetric(float64(replicated-start)/nodes/each, "replicated-B/endpoint")
		b.ReportMetric(float64(named-replicated)/nodes/each, "index-B/endpoint")
		runtime.KeepAlive(state)
		runtime.KeepAlive(index)
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func keyNumber(n int) ed25519.PrivateKey {
	var s [ed25519.SeedSize]byte
	binary.BigEndian.PutUint64(s[:], uint64(n))
	return ed25519.NewKeyFromSeed(s[:])
}

// receiveBook lets a node tell of its workloads.
func receiveBook(b *testing.B, to *gossip.State, n, many int) {
	b.Helper()
	name := fmt.Sprintf("node-%04d", n)
	from := gossip.NewState(gossip.StateConfig{Node: name, Key: keyNumber(n), Now: time.Now, Broadcast: func(string, []byte, []byte) {}})
	for _, s := range []struct {
		at *gossip.State
		of string
		n  int
	}{{to, name, n}, {from, "me", 1000}} {
		if err := s.at.Pin(s.of, keyNumber(s.n).Public().(ed25519.PublicKey)); err != nil {
			b.Fatal(err)
		}
	}
	var entries []gossip.Entry
	for i := range many {
		id := n*many + i
		service := fmt.Sprintf("service-%d", id%2000)
		value, err := encodeEndpoint(&identity.Workload{
			Namespace: "shop", Name: fmt.Sprintf("%s-6f8d9c5b7-%05x", service, id), Service: identity.Service{Namespace: "shop", Name: service},
			Labels:          identity.Labels{"app.kubernetes.io/name": service, "app.kubernetes.io/part-of": "shop", "pod-template-hash": "6f8d9c5b7"},
			NamespaceLabels: identity.Labels{spaceName: "shop", "team": "checkout"},
			Addrs:           []netip.Addr{netip.AddrFrom4([4]byte{10, byte(n >> 4), byte(n<<4 | i>>8), byte(i)})},
			Ports:           []identity.ContainerPort{{Name: "http", Protocol: identity.TCP, Port: 8080}, {Name: "metrics", Protocol: identity.TCP, Port: 9090}},
		})
		if err != nil {
			b.Fatal(err)
		}
		entries = append(entries, gossip.Entry{Key: fmt.Sprintf("%064x", id), Value: value})
	}
	if _, err := from.Write(gossip.Endpoints, entries...); err != nil {
		b.Fatal(err)
	}
	// One exchange brings it over.
	messages, back := [][]byte{from.Summary()}, true
	for len(messages) > 0 {
		var replies [][]byte
		for _, m := range messages {
			at, who := to, name
			if !back {
				at, who = from, "me"
			}
			r, err := at.Receive(who, m)
			if err != nil {
				b.Fatal(err)
			}
			replies = append(replies, r...)
		}
		messages, back = replies, !back
	}
	if got := len(to.Entries(name, gossip.Endpoints)); got != many {
		b.Fatalf("%s told of %d workloads, want %d", name, got, many)
	}
}
