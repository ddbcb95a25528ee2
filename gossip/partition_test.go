package gossip

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// cable is real UDP and TCP that can be cut: what is sent is lost, what is dialled is not reached.
type cable struct {
	*memberlist.NetTransport
	cut *atomic.Bool
	tap func(to string, packet []byte) // nil: nobody listens
}

func (c cable) WriteTo(b []byte, to string) (time.Time, error) {
	if c.cut.Load() {
		return time.Now(), nil
	}
	if c.tap != nil {
		c.tap(to, bytes.Clone(b))
	}
	return c.NetTransport.WriteTo(b, to)
}

func (c cable) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	return c.WriteTo(b, to.Addr)
}

func (c cable) DialTimeout(to string, wait time.Duration) (net.Conn, error) {
	if c.cut.Load() {
		return nil, errors.New("cut")
	}
	return c.NetTransport.DialTimeout(to, wait)
}

func (c cable) DialAddressTimeout(to memberlist.Address, wait time.Duration) (net.Conn, error) {
	return c.DialTimeout(to.Addr, wait)
}

func startCable(t *testing.T, name string, cut *atomic.Bool, tap func(string, []byte), seeds ...string) *Cluster {
	t.Helper()
	net, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{"127.0.0.1"}, Logger: log.New(io.Discard, "", 0)})
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	g, err := Join(context.Background(), Config{
		Node: name, Label: "shop", Key: key, Keyring: [][]byte{secret(1)}, Seeds: seeds, Log: slog.New(slog.DiscardHandler),
		Bind: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(net.GetAutoBindPort())), Transport: cable{net, cut, tap},
		deadTold: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g
}

// A partition that lasts longer than memberlist remembers the dead heals by itself, both sides having
// gone on; only one of them has the other as a seed.
func TestPartitionHeals(t *testing.T) {
	var cut atomic.Bool
	a := startCable(t, "a", &cut, nil)
	b := startCable(t, "b", &cut, nil, a.address())
	longer := func(what string, so func() bool) {
		t.Helper()
		for end := time.Now().Add(2 * time.Minute); !so(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not within two minutes: %s", what)
			}
		}
	}
	longer("two members", func() bool { return a.alive.Load() == 2 && b.alive.Load() == 2 })
	cut.Store(true)
	longer("each takes the other for dead", func() bool { return a.member("b") == nil && b.member("a") == nil })
	time.Sleep(100 * time.Millisecond) // longer than the dead are told
	for _, g := range []*Cluster{a, b} {
		if _, err := g.State.Set("policy", "of "+g.config.Node, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := g.State.Set("policy", "both", []byte(g.config.Node)); err != nil {
			t.Fatal(err)
		}
	}
	cut.Store(false)
	healed := time.Now()
	longer("they agree again", func() bool {
		return a.alive.Load() == 2 && b.alive.Load() == 2 && bytes.Equal(a.State.Summary(), b.State.Summary())
	})
	t.Logf("agreed %s after the cable was back", time.Since(healed).Round(time.Millisecond))
	for _, g := range []*Cluster{a, b} {
		if n := len(g.State.List("policy")); n != 3 {
			t.Errorf("%s has %d policies, want 3", g.config.Node, n)
		}
	}
}

// Someone on the way, without the key, reads nothing, and neither what he sends again nor what he changes
// does anything.
func TestOnTheWire(t *testing.T) {
	var mu sync.Mutex
	var caught [][]byte
	var target string
	tap := func(to string, packet []byte) {
		mu.Lock()
		defer mu.Unlock()
		if caught, target = append(caught, packet), to; len(caught) > 2000 {
			caught = caught[1:]
		}
	}
	a := startCable(t, "a", &atomic.Bool{}, tap)
	b := startCable(t, "b", &atomic.Bool{}, nil, a.address())
	until(t, "two members", func() bool { return a.alive.Load() == 2 && b.alive.Load() == 2 })
	const secret = "nobody may read that cart talks to the bank"
	if _, err := a.State.Set("policy", "cart", []byte(secret)); err != nil {
		t.Fatal(err)
	}
	has := func(want string) func() bool {
		return func() bool { r, _ := b.State.Get("policy", "cart"); return string(r.Value) == want }
	}
	until(t, "b has it", has(secret))
	if _, err := a.State.Set("policy", "cart", []byte("now another")); err != nil {
		t.Fatal(err)
	}
	until(t, "b has what came later", has("now another"))
	until(t, "some packets are caught", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(caught) >= 5
	})
	mu.Lock()
	packets, to := caught, target
	mu.Unlock()

	stranger, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	for i, p := range packets {
		if bytes.Contains(p, []byte(secret)) || bytes.Contains(p, []byte("policy")) {
			t.Fatalf("packet %d can be read", i)
		}
		changed := bytes.Clone(p)
		changed[len(changed)/2] ^= 1
		for _, send := range [][]byte{p, changed, p[:len(p)/2]} {
			if _, err := stranger.Write(send); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := a.State.Set("policy", "after", []byte("x")); err != nil {
		t.Fatal(err)
	}
	until(t, "b heard it all", func() bool { _, ok := b.State.Get("policy", "after"); return ok })
	if !has("now another")() || b.alive.Load() != 2 || b.counts.Refused.Load() != 0 {
		t.Errorf("it did something: %d members, %d refused", b.alive.Load(), b.counts.Refused.Load())
	}
}
