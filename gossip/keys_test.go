package gossip

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// deafness counts what memberlist could not decrypt.
type deafness struct {
	slog.Handler
	n *atomic.Int64
}

func (d deafness) Enabled(context.Context, slog.Level) bool { return true }
func (d deafness) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "ecrypt") {
		d.n.Add(1)
	}
	return nil
}

// ringed starts nodes of one cluster that store their keys.
func ringed(t *testing.T, n int, key []byte) (nodes []*Cluster, stored func(i int) [][]byte, deaf *atomic.Int64) {
	t.Helper()
	deaf = &atomic.Int64{}
	var mu sync.Mutex
	files := make([][][]byte, n)
	for i := range n {
		_, own, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		var seeds []string
		if i > 0 {
			seeds = []string{nodes[0].address()}
		}
		g, err := Join(context.Background(), Config{
			Node: fmt.Sprintf("n%d", i), Label: "shop", Key: own, Keyring: [][]byte{key}, Seeds: seeds,
			Bind: netip.MustParseAddrPort("127.0.0.1:0"), Log: slog.New(deafness{slog.DiscardHandler, deaf}),
			KeysChanged: func(keys [][]byte) error {
				mu.Lock()
				defer mu.Unlock()
				files[i] = keys
				return nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = g.Close() })
		nodes = append(nodes, g)
	}
	until(t, "all members everywhere", func() bool {
		for _, g := range nodes {
			if g.alive.Load() != int64(n) {
				return false
			}
		}
		return true
	})
	return nodes, func(i int) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		return files[i]
	}, deaf
}

// A key is replaced while messages fly: none is lost, and each node stores what it goes by.
func TestKeyRotation(t *testing.T) {
	old, fresh := secret(1), secret(2)
	nodes, stored, deaf := ringed(t, 4, old)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	end, written := make(chan struct{}), make(chan int)
	go func() { // writes all the time, until end
		n := 0
		for {
			select {
			case <-end:
				written <- n
				return
			case <-time.After(2 * time.Millisecond):
			}
			if _, err := nodes[n%4].State.Set("policy", fmt.Sprint(n), []byte("x")); err != nil {
				t.Error(err)
			}
			n++
		}
	}()
	for i, step := range []func() ([]KeyState, error){
		func() ([]KeyState, error) { return nodes[1].InstallKey(ctx, fresh) },
		func() ([]KeyState, error) { return nodes[1].InstallKey(ctx, fresh) }, // said twice is no error
		func() ([]KeyState, error) { return nodes[2].UseKey(ctx, Fingerprint(fresh)) },
		func() ([]KeyState, error) { return nodes[3].RemoveKey(ctx, Fingerprint(old)) },
	} {
		if _, err := step(); err != nil {
			t.Errorf("step %d: %v", i, err)
		}
		time.Sleep(200 * time.Millisecond) // packets of all nodes go under this step's keys
	}
	close(end)
	n := <-written
	until(t, "all writes everywhere", func() bool {
		for _, g := range nodes {
			if len(g.State.List("policy")) != n {
				return false
			}
		}
		return true
	})
	states, err := nodes[0].Keys(ctx)
	if err != nil || len(states) != 4 {
		t.Fatal(states, err)
	}
	for i, s := range states {
		if s.Primary != Fingerprint(fresh) || len(s.Keys) != 1 {
			t.Errorf("%+v", s)
		}
		if f := stored(i); len(f) != 1 || !bytes.Equal(f[0], fresh) {
			t.Errorf("n%d stored %d keys", i, len(f))
		}
	}
	if deaf.Load() > 0 {
		t.Errorf("%d messages could not be decrypted", deaf.Load())
	}
}

// An order that would cut somebody off is refused, and changes nothing.
func TestKeyRefused(t *testing.T) {
	old, fresh := secret(1), secret(2)
	nodes, _, _ := ringed(t, 3, old)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	wants := func(what string, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	_, err := nodes[0].UseKey(ctx, Fingerprint(fresh))
	wants("a key that nobody has", err, "n0, n1, n2 would not understand")
	_, err = nodes[0].RemoveKey(ctx, Fingerprint(old))
	wants("the only key", err, "encrypts with it")
	_, err = nodes[0].RemoveKey(ctx, Fingerprint(fresh))
	wants("a key that nobody has", err, "no node has it")
	_, err = nodes[0].InstallKey(ctx, fresh[:9])
	wants("a key too short", err, "want 16, 24 or 32")

	// One that is away lags: installing names it, using is refused.
	if err := nodes[2].Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "n2 is dead", func() bool { return nodes[0].member("n2") == nil })
	_, err = nodes[0].InstallKey(ctx, fresh)
	wants("a node away", err, `"n2"`)
	_, err = nodes[0].UseKey(ctx, Fingerprint(fresh))
	wants("a node away", err, "not all nodes can be asked")
	states, _ := nodes[0].Keys(ctx)
	for _, s := range states {
		if s.Node != "n2" && (s.Primary != Fingerprint(old) || len(s.Keys) != 2) {
			t.Errorf("%+v", s)
		}
	}
}
