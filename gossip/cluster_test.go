package gossip

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"
)

// cluster starts nodes on loopback, over real UDP and TCP.
func startNode(t testing.TB, name, label string, keys [][]byte, seeds ...string) *Cluster {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	g, err := Join(context.Background(), Config{
		Node: name, Label: label, Key: key, Keyring: keys, Seeds: seeds, Version: "test",
		Bind: netip.MustParseAddrPort("127.0.0.1:0"), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g
}

func (g *Cluster) address() string { return g.list.LocalNode().Address() }

// until waits for something to become so; machines of CI are slow.
func until(t testing.TB, what string, so func() bool) time.Duration {
	t.Helper()
	return within(t, time.Minute, what, so)
}

func within(t testing.TB, patience time.Duration, what string, so func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !so() {
		if time.Since(start) > patience {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(start)
}

func secret(fill byte) []byte {
	k := make([]byte, 32)
	for i := range k {
		k[i] = fill
	}
	return k
}

// What one node writes all have, small and large, soon; and a node that comes late has it too.
func TestFiveNodes(t *testing.T) {
	keys := [][]byte{secret(1)}
	nodes := []*Cluster{startNode(t, "n0", "shop", keys)}
	for i := 1; i < 5; i++ {
		nodes = append(nodes, startNode(t, fmt.Sprintf("n%d", i), "shop", keys, nodes[0].address()))
	}
	until(t, "five members", func() bool {
		for _, n := range nodes {
			if len(n.Members()) != 5 {
				return false
			}
		}
		return true
	})
	for _, size := range []int{100, 5000, 300_000} {
		key := fmt.Sprintf("p%d", size)
		if _, err := nodes[1].State.Set("policy", key, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		took := until(t, key+" everywhere", func() bool {
			for _, n := range nodes {
				if r, ok := n.State.Get("policy", key); !ok || len(r.Value) != size {
					return false
				}
			}
			return true
		})
		t.Logf("a policy of %d bytes: %s", size, took.Round(time.Millisecond))
	}
	for i := range 200 {
		if _, err := nodes[2].State.Write(Endpoints, Entry{Key: fmt.Sprintf("pod-%d", i), Value: []byte("10.0.0.1")}); err != nil {
			t.Fatal(err)
		}
	}
	took := until(t, "200 endpoints everywhere", func() bool {
		for _, n := range nodes {
			if len(n.State.Entries("n2", Endpoints)) != 200 {
				return false
			}
		}
		return true
	})
	t.Logf("200 endpoints: %s", took.Round(time.Millisecond))
	for _, n := range nodes {
		t.Log(n.config.Node, n.counts.Refused.Load(), n.counts.Overflow.Load(), n.counts.Unsent.Load())
	}
	late := startNode(t, "late", "shop", keys, nodes[3].address())
	took = until(t, "the late node has all", func() bool {
		_, ok := late.State.Get("policy", "p5000")
		return ok && len(late.State.Entries("n2", Endpoints)) == 200
	})
	t.Logf("a late node: %s", took.Round(time.Millisecond))
	if err := nodes[2].Leave(context.Background()); err != nil {
		t.Fatal(err)
	}
	until(t, "n2's endpoints are gone", func() bool { return len(nodes[4].State.Entries("n2", Endpoints)) == 0 })
}

// Nodes with another key or another cluster's name stay strangers.
func TestStrangers(t *testing.T) {
	a := startNode(t, "a", "shop", [][]byte{secret(1)})
	b := startNode(t, "b", "shop", [][]byte{secret(2)}, a.address())
	c := startNode(t, "c", "other", [][]byte{secret(1)}, a.address())
	d := startNode(t, "d", "shop", [][]byte{secret(1)}, a.address())
	until(t, "a and d meet", func() bool { return len(a.Members()) == 2 && len(d.Members()) == 2 })
	if _, err := b.State.Set("policy", "p", []byte("x")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	if n := len(a.Members()); n != 2 {
		t.Errorf("a has %d members", n)
	}
	if _, ok := a.State.Get("policy", "p"); ok || len(b.Members()) != 1 || len(c.Members()) != 1 {
		t.Error("a stranger was heard")
	}
}

// A node under the name of another, with its own key, is no member, and what it says of the other is
// not believed.
func TestImpostor(t *testing.T) {
	keys := [][]byte{secret(1)}
	a := startNode(t, "a", "shop", keys)
	b := startNode(t, "b", "shop", keys, a.address())
	if _, err := b.State.Write(Endpoints, Entry{Key: "pod", Value: []byte("true")}); err != nil {
		t.Fatal(err)
	}
	until(t, "a knows b's pod", func() bool { return len(a.State.Entries("b", Endpoints)) == 1 })
	_ = b.Close()
	impostor := startNode(t, "b", "shop", keys, a.address())
	if _, err := impostor.State.Write(Endpoints, Entry{Key: "pod", Value: []byte("lie")}); err != nil {
		t.Fatal(err)
	}
	until(t, "the impostor is refused", func() bool { return a.counts.Refused.Load() > 0 })
	time.Sleep(300 * time.Millisecond)
	if e := a.State.Entries("b", Endpoints); len(e) != 1 || string(e[0].Value) != "true" {
		t.Errorf("a believes %q", e)
	}
}
