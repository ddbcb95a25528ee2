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
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// cable is real UDP and TCP that can be cut: what is sent is lost, what is dialled is not reached.
type cable struct {
	*memberlist.NetTransport
	cut *atomic.Bool
}

func (c cable) WriteTo(b []byte, to string) (time.Time, error) {
	if c.cut.Load() {
		return time.Now(), nil
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

func startCable(t *testing.T, name string, cut *atomic.Bool, seeds ...string) *Cluster {
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
		Bind: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(net.GetAutoBindPort())), Transport: cable{net, cut},
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
	a := startCable(t, "a", &cut)
	b := startCable(t, "b", &cut, a.address())
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
