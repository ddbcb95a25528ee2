package gossip

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// msgLater stands for a kind of message that came with version 2.
const msgLater byte = 100

func startVersion(t *testing.T, name string, version uint8, seeds ...string) *Cluster {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	g, err := Join(context.Background(), Config{
		Node: name, Label: "shop", Key: key, Keyring: [][]byte{secret(1)}, Seeds: seeds,
		Bind: netip.MustParseAddrPort("127.0.0.1:0"), Log: slog.New(slog.DiscardHandler),
		protocol: version, since: func(kind byte) uint8 {
			if kind == msgLater {
				return 2
			}
			return 1
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g
}

// While a cluster is upgraded node by node, an older node is not told what it does not know, in a
// broadcast nor by itself, and all agree; when the last one is new, the new is spoken.
func TestRollingUpgrade(t *testing.T) {
	a := startVersion(t, "a", 2)
	b := startVersion(t, "b", 2, a.address())
	old := startVersion(t, "old", 1, a.address())
	until(t, "three members, that speak 1", func() bool {
		return a.alive.Load() == 3 && b.alive.Load() == 3 && old.alive.Load() == 3 && a.Protocol() == 1 && b.Protocol() == 1
	})
	later := []byte{msgLater, 1}
	unsent := a.counts.Unsent.Load()
	a.broadcast("later", later, nil)
	a.reply("old", later)
	until(t, "it is not sent to the older one", func() bool { return a.counts.Unsent.Load() == unsent+1 })
	if _, err := a.State.Set("policy", "p", []byte("x")); err != nil {
		t.Fatal(err)
	}
	until(t, "what all know is told to all", func() bool {
		_, one := b.State.Get("policy", "p")
		_, two := old.State.Get("policy", "p")
		return one && two
	})
	if n := old.counts.Refused.Load() + b.counts.Refused.Load(); n != 0 {
		t.Errorf("%d messages were not understood", n)
	}
	if m := a.Members(); m[2].Node != "old" || m[2].Speaks != 1 || m[0].Speaks != 2 {
		t.Errorf("%+v", m)
	}

	if err := old.Close(); err != nil { // it is upgraded
		t.Fatal(err)
	}
	until(t, "the others speak 2", func() bool { return a.Protocol() == 2 && b.Protocol() == 2 })
	a.broadcast("later", later, nil)
	// No kind of message is of version 2 yet: that it arrives shows in that b does not know it either.
	until(t, "it is spoken", func() bool { return b.counts.Refused.Load() > 0 })
}

// A node that joins, works and leaves again, or dies and is never seen again, leaves nothing behind.
// BULKHEAD_CYCLES sets how often.
func TestComingAndGoing(t *testing.T) {
	cycles := 500
	if n, err := strconv.Atoi(os.Getenv("BULKHEAD_CYCLES")); err == nil {
		cycles = n
	}
	now := time.Unix(1_800_000_000, 0)
	_, key, _ := ed25519.GenerateKey(nil)
	g, err := Join(context.Background(), Config{Node: "stays", Label: "shop", Key: key, Bind: netip.MustParseAddrPort("127.0.0.1:0"),
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil { // its tasks end; what memberlist calls is called here
		t.Fatal(err)
	}
	g.config.Now = func() time.Time { return now }
	g.State.clock.now = g.config.Now
	size := func() int {
		snapshot, err := g.State.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		return len(snapshot)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	empty, before, most := size(), heap(), 0
	for i := range cycles {
		comeAndGo(t, g, i)
		now = now.Add(30 * time.Second)
		if i%250 == 249 {
			g.reap()
			g.State.TakeChanges()
			most = max(most, len(g.nodes))
		}
	}
	now = now.Add(deadForgotten + time.Hour)
	g.reap()
	g.State.TakeChanges()
	t.Logf("%d cycles: at most %d nodes known, heap %d KiB before and %d KiB after", cycles, most, before>>10, heap()>>10)
	if len(g.nodes) > 1 || len(g.living) > 0 || len(g.State.pins) != 1 || g.State.bookBytes != 0 || size() > empty+64 {
		t.Errorf("left: %d nodes, %d keys, %d bytes of books, %d bytes of state (%d before)", len(g.nodes), len(g.State.pins), g.State.bookBytes, size(), empty)
	}
	if most > maxNodes {
		t.Errorf("%d nodes were known at a time, bound %d", most, maxNodes)
	}
}

// There is room for so many nodes; who is gone longest makes room, and nobody who lives.
func TestRoom(t *testing.T) {
	g := startNode(t, "stays", "shop", [][]byte{secret(1)})
	now := time.Now()
	g.mu.Lock()
	for i := range maxNodes {
		g.nodes[fmt.Sprint("n", i)] = &known{node: &memberlist.Node{}, status: Alive, since: now}
	}
	g.nodes["n7"].status, g.nodes["n8"].status, g.nodes["n8"].since = Dead, Left, now.Add(-time.Hour)
	g.mu.Unlock()
	for _, gone := range []string{"n8", "n7"} {
		err := g.room("new")
		g.mu.Lock()
		if err != nil || g.nodes[gone] != nil {
			t.Errorf("%s makes no room: %v", gone, err)
		}
		g.nodes["in the place of "+gone] = &known{node: &memberlist.Node{}, status: Alive, since: now}
		g.mu.Unlock()
	}
	if err := g.room("new"); !errors.Is(err, errFull) {
		t.Errorf("among the living: %v", err)
	}
	if err := g.room("n1"); err != nil {
		t.Errorf("who is known needs none: %v", err)
	}
}

// comeAndGo is the life of one node, as memberlist tells of it. Every second one dies without a word.
func comeAndGo(t *testing.T, g *Cluster, i int) {
	t.Helper()
	name := fmt.Sprint("n", i)
	_, key, _ := ed25519.GenerateKey(nil)
	about := meta{Key: key.Public().(ed25519.PublicKey), Version: "1"}
	n := &memberlist.Node{Name: name, Addr: []byte{127, 0, 0, 1}, Port: 1, Meta: sealMeta(name, about, key, 512), DMax: 1}
	if err := g.NotifyAlive(n); err != nil {
		t.Fatal(err)
	}
	g.NotifyJoin(n)
	other := NewState(StateConfig{Node: name, Key: key, Now: g.config.Now, Broadcast: func(string, []byte, []byte) {}})
	if _, err := other.Write(Endpoints, Entry{Key: "pod", Value: make([]byte, 100)}); err != nil {
		t.Fatal(err)
	}
	b := other.books[bookID{name, Endpoints}]
	if _, err := g.State.Receive(name, encode(msgContents, b.contents(allBuckets))); err != nil {
		t.Fatal(err)
	}
	if i%2 == 0 {
		about.Leaving, about.Last = true, b.head.Version
		n.Meta = sealMeta(name, about, key, 512)
		g.NotifyUpdate(n)
	}
	g.NotifyLeave(n)
}

// A goodbye of an earlier life, said again by somebody else, does not send a node away.
func TestOldGoodbye(t *testing.T) {
	g := startNode(t, "stays", "shop", [][]byte{secret(1)})
	_, key, _ := ed25519.GenerateKey(nil)
	other := NewState(StateConfig{Node: "n1", Key: key, Now: time.Now, Broadcast: func(string, []byte, []byte) {}})
	about := meta{Key: key.Public().(ed25519.PublicKey), Leaving: true, Last: other.Version("n1", Endpoints)}
	n := &memberlist.Node{Name: "n1", Addr: []byte{127, 0, 0, 1}, Port: 1, Meta: sealMeta("n1", about, key, 512), DMax: 1}
	if err := g.NotifyAlive(n); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Write(Endpoints, Entry{Key: "pod", Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if _, err := g.State.Receive("n1", encode(msgContents, other.books[bookID{"n1", Endpoints}].contents(allBuckets))); err != nil {
		t.Fatal(err)
	}
	g.NotifyLeave(n)
	if len(g.State.Entries("n1", Endpoints)) != 1 {
		t.Error("its workloads are forgotten")
	}
}

// Seeds are hosts, addresses of either family, and files; what cannot be read keeps the others from
// nothing.
func TestSeeds(t *testing.T) {
	file := filepath.Join(t.TempDir(), "seeds")
	if err := os.WriteFile(file, []byte("# nodes\n10.0.0.1\n\n[fd00::1]:7000 # two\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := resolveSeeds(context.Background(), []string{"10.0.0.2:7000", "fd00::2", "[fd00::3]", "file:" + file, "file:/nowhere", "localhost:1", "a b"}, 7946)
	if err == nil {
		t.Error("no error of a missing file")
	}
	for _, want := range []string{"10.0.0.2:7000", "[fd00::2]:7946", "[fd00::3]:7946", "10.0.0.1:7946", "[fd00::1]:7000"} {
		if !slices.Contains(got, netip.MustParseAddrPort(want)) {
			t.Errorf("%s is missing in %v", want, got)
		}
	}
	if !slices.ContainsFunc(got, func(a netip.AddrPort) bool { return a.Addr().IsLoopback() && a.Port() == 1 }) {
		t.Errorf("localhost was not resolved: %v", got)
	}
}

func TestAdvertised(t *testing.T) {
	for _, c := range []struct{ bind, advertise, seed, want string }{
		{"10.0.0.1:7946", "", "", "10.0.0.1:7946"},
		{"0.0.0.0:7946", "192.168.1.2:0", "", "192.168.1.2:7946"},
		{"0.0.0.0:7946", "192.168.1.2:99", "", "192.168.1.2:99"},
	} {
		conf := Config{Bind: netip.MustParseAddrPort(c.bind), Log: slog.New(slog.DiscardHandler)}
		if c.advertise != "" {
			conf.Advertise = netip.MustParseAddrPort(c.advertise)
		}
		got, err := advertised(context.Background(), &conf)
		if err != nil || got.String() != c.want {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
}
