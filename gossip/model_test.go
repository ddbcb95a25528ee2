package gossip

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// world is a cluster of States with a network that loses, delays, repeats and cuts, driven step by step.
type world struct {
	t     *testing.T
	dice  *rand.Rand
	now   time.Time
	nodes []*member
	wire  []letter
	loss  int // per cent
	side  []int
	wrote []Record // all that was ever set
}

type member struct {
	name  string
	key   ed25519.PrivateKey
	skew  time.Duration
	state *State
	queue map[string]*spread
	owned map[string]string // what its own endpoints must be
	lost  Timestamp         // writes up to here were forgotten by it
}

// spread is told in full, then in brief, where there is that.
type spread struct {
	full, brief []byte
	left        int
}

type letter struct {
	from, to int
	message  []byte
	sure     bool // TCP: not lost, but cut off by a partition
}

func newWorld(t *testing.T, n int, seed uint64) *world {
	w := &world{t: t, dice: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1_800_000_000, 0), side: make([]int, n)}
	for i := range n {
		var s [ed25519.SeedSize]byte
		binary.BigEndian.PutUint64(s[:], uint64(i)+seed)
		m := &member{name: fmt.Sprintf("n%d", i), key: ed25519.NewKeyFromSeed(s[:]), owned: map[string]string{},
			skew: time.Duration(w.dice.IntN(10)-5) * time.Hour}
		w.start(m)
		w.nodes = append(w.nodes, m)
	}
	w.pinAll()
	return w
}

func (w *world) start(m *member) {
	m.queue = map[string]*spread{}
	m.state = NewState(StateConfig{Node: m.name, Key: m.key, Now: func() time.Time { return w.now.Add(m.skew) },
		Broadcast: func(name string, full, brief []byte) { m.queue[name] = &spread{full, brief, 12} }})
}

func (w *world) pinAll() {
	for _, a := range w.nodes {
		for _, b := range w.nodes {
			if err := a.state.Pin(b.name, b.key.Public().(ed25519.PublicKey)); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// step lets every node gossip to two others, now and then exchange with one, and delivers in random order.
func (w *world) step() {
	w.now = w.now.Add(100 * time.Millisecond)
	for i, m := range w.nodes {
		for range 2 {
			to := w.dice.IntN(len(w.nodes))
			for _, name := range slices.Sorted(maps.Keys(m.queue)) {
				s := m.queue[name]
				told := s.full
				if s.left <= 6 && s.brief != nil {
					told = s.brief
				}
				w.wire = append(w.wire, letter{i, to, told, false})
				if s.left--; s.left == 0 {
					delete(m.queue, name)
				}
			}
		}
		if w.dice.IntN(10) == 0 {
			w.wire = append(w.wire, letter{i, w.dice.IntN(len(w.nodes)), m.state.Summary(), false})
		}
	}
	w.deliver()
}

func (w *world) deliver() {
	letters := w.wire
	w.wire = nil
	w.dice.Shuffle(len(letters), func(i, j int) { letters[i], letters[j] = letters[j], letters[i] })
	for _, l := range letters {
		switch {
		case l.from == l.to || w.side[l.from] != w.side[l.to]:
			continue
		case !l.sure && w.dice.IntN(100) < w.loss:
			continue
		case w.dice.IntN(5) == 0: // late
			w.wire = append(w.wire, l)
			continue
		case w.dice.IntN(20) == 0: // twice
			w.wire = append(w.wire, l)
		}
		replies, err := w.nodes[l.to].state.Receive(w.nodes[l.from].name, l.message)
		if err != nil {
			w.t.Fatalf("%s refuses a message: %v", w.nodes[l.to].name, err)
		}
		for _, r := range replies {
			w.wire = append(w.wire, letter{l.to, l.from, r, true})
		}
	}
}

func (w *world) act() {
	m := w.nodes[w.dice.IntN(len(w.nodes))]
	switch x := w.dice.IntN(100); {
	case x < 50:
		var batch []Entry
		for range 1 + w.dice.IntN(3) {
			e := Entry{Key: fmt.Sprintf("pod-%d", w.dice.IntN(40))}
			delete(m.owned, e.Key)
			if w.dice.IntN(3) > 0 {
				e.Value = make([]byte, 1+w.dice.IntN(300))
				e.Value[0] = byte(w.dice.IntN(256))
				m.owned[e.Key] = string(e.Value)
			}
			batch = slices.DeleteFunc(batch, func(o Entry) bool { return o.Key == e.Key })
			batch = append(batch, e)
		}
		if _, err := m.state.Write(Endpoints, batch...); err != nil {
			w.t.Fatal(err)
		}
	case x < 85:
		var value []byte
		if w.dice.IntN(4) > 0 {
			value = make([]byte, 1+w.dice.IntN(2000))
			value[0] = byte(w.dice.IntN(256))
		}
		rec, err := m.state.Set("policy", fmt.Sprintf("p%d", w.dice.IntN(30)), value)
		if err != nil {
			w.t.Fatal(err)
		}
		w.wrote = append(w.wrote, rec)
	case x < 90: // kill -9 and back from its disk
		saved, err := m.state.Snapshot()
		if err != nil {
			w.t.Fatal(err)
		}
		w.start(m)
		if err := m.state.Restore(saved); err != nil {
			w.t.Fatal(err)
		}
		w.pinAll()
	case x < 93: // back with nothing: its endpoints are found anew
		m.lost = max(m.lost, m.state.clock.next())
		w.start(m)
		w.pinAll()
		for _, k := range slices.Sorted(maps.Keys(m.owned)) {
			if _, err := m.state.Write(Endpoints, Entry{Key: k, Value: []byte(m.owned[k])}); err != nil {
				w.t.Fatal(err)
			}
		}
	case x < 97:
		for i := range w.side {
			w.side[i] = w.dice.IntN(2)
		}
	default:
		clear(w.side)
	}
}

// converged says whether all hold the same, by what they would tell each other.
func (w *world) converged() bool {
	first := w.nodes[0].state.Summary()
	for _, m := range w.nodes {
		if !bytes.Equal(m.state.Summary(), first) {
			return false
		}
	}
	return true
}

func seedOf(t *testing.T) uint64 {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("BULKHEAD_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("BULKHEAD_SEED=%d", seed)
	return seed
}

// steps is how long each round is: BULKHEAD_STEPS for a long run.
func steps(t *testing.T) int {
	n, err := strconv.Atoi(cmp.Or(os.Getenv("BULKHEAD_STEPS"), "200"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Whatever nodes write, whatever the network does, who is cut off or killed: when it is quiet again all
// hold the same, and that is what the owners hold and the last ones wrote.
func TestModel(t *testing.T) {
	seed := seedOf(t)
	for round := range uint64(6) {
		w := newWorld(t, 2+int(round)*2, seed+round)
		w.loss = int(round) * 5
		for range steps(t) {
			w.act()
			w.step()
		}
		clear(w.side)
		quiet := 0
		for ; !w.converged() && quiet < 1000; quiet++ {
			w.step()
		}
		if !w.converged() {
			t.Fatalf("round %d: no agreement after %d quiet steps", round, quiet)
		}
		for _, owner := range w.nodes {
			for _, m := range w.nodes {
				got := map[string]string{}
				for _, e := range m.state.Entries(owner.name, Endpoints) {
					got[e.Key] = string(e.Value)
				}
				if !maps.Equal(got, owner.owned) {
					t.Fatalf("round %d: %s holds %d endpoints of %s, which has %d", round, m.name, len(got), owner.name, len(owner.owned))
				}
			}
		}
		w.checkRegisters(round)
		t.Logf("%d nodes, %d %% loss: agreed after %d quiet steps", len(w.nodes), w.loss, quiet)
	}
}

// checkRegisters: of all that was ever set the winner is there, everywhere; nothing that lost comes back.
// Only what a node forgot before it told anybody may be gone.
func (w *world) checkRegisters(round uint64) {
	winners := map[ID]Record{}
	for _, r := range w.wrote {
		if old, ok := winners[r.ID()]; !ok || r.beats(&old) {
			winners[r.ID()] = r
		}
	}
	for id, want := range winners {
		for _, m := range w.nodes {
			got, ok := m.state.registers.records[id]
			if ok && got.Time == want.Time && bytes.Equal(got.Value, want.Value) {
				continue
			}
			if author := w.named(want.Node); author.lost < want.Time {
				w.t.Fatalf("round %d: %s holds %s of %s for %s, want %s of %s", round, m.name, got.Time, got.Node, id.Key, want.Time, want.Node)
			}
		}
	}
}

func (w *world) named(name string) *member {
	for _, m := range w.nodes {
		if m.name == name {
			return m
		}
	}
	w.t.Fatalf("no node %q", name)
	return nil
}
