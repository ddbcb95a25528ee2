package identity

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

func newRand(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("BULKHEAD_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("BULKHEAD_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 3))
}

// slowClaim and slowIndex are the obvious reading of the rules: a list of claims that is gone
// through each time.
type slowClaim struct {
	id     string
	source Source
	addr   netip.Addr
	since  time.Time
	order  int
	lost   bool
}

type slowIndex struct {
	claims []slowClaim
	ever   []slowClaim // claims that owned the address at some time
	order  int
}

func (s *slowIndex) upsert(w Workload) {
	s.withdraw(w.ID)
	for _, a := range w.Addrs {
		s.order++
		c := slowClaim{id: w.ID, source: w.Source, addr: a, since: w.Since, order: s.order}
		for i := range s.claims {
			o := &s.claims[i]
			if o.addr != a {
				continue
			}
			if o.source >= c.source && o.since.After(c.since) {
				c.lost = true
			} else if o.source <= c.source && !o.since.After(c.since) {
				o.lost = true
			}
		}
		for _, e := range s.ever {
			if e.addr == a && e.id != w.ID && e.source >= c.source && e.since.After(c.since) {
				c.lost = true
			}
		}
		s.claims = append(s.claims, c)
	}
	s.note()
}

func (s *slowIndex) withdraw(id string) {
	s.claims = slices.DeleteFunc(s.claims, func(c slowClaim) bool { return c.id == id })
	s.note()
}

func (s *slowIndex) note() {
	for _, c := range s.claims {
		if o := s.owner(c.addr); o != nil && !slices.ContainsFunc(s.ever, func(e slowClaim) bool { return e.order == o.order }) {
			s.ever = append(s.ever, *o)
		}
	}
}

func (s *slowIndex) owner(a netip.Addr) *slowClaim {
	var best *slowClaim
	for i := range s.claims {
		c := &s.claims[i]
		if c.addr != a || c.lost {
			continue
		}
		if best == nil || c.source > best.source || c.source == best.source && (c.since.After(best.since) || c.since.Equal(best.since) && c.order > best.order) {
			best = c
		}
	}
	return best
}

// TestAgainstSlowList: a workload's statements come in any order, each ID once (IDs are not reused),
// and the index agrees with the list after every one of them.
func TestAgainstSlowList(t *testing.T) {
	r := newRand(t)
	for round := range 300 {
		ix, slow := NewIndex("n1"), &slowIndex{}
		base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		now := base.Add(time.Hour)
		ix.now = func() time.Time { return now }
		tenures := map[netip.Addr]int{}
		var ids []string
		for step := range 40 {
			now = now.Add(time.Second)
			if len(ids) > 0 && r.IntN(100) < 40 {
				i := r.IntN(len(ids))
				ix.Withdraw(ids[i], SourceCNI)
				slow.withdraw(ids[i])
				ids = slices.Delete(ids, i, i+1)
			} else {
				w := Workload{ID: fmt.Sprintf("w%d", step), Namespace: "x", Name: fmt.Sprintf("n%d", step), Source: Source(1 + r.IntN(4)), Since: base.Add(time.Duration(r.IntN(30)) * time.Second)}
				for range 1 + r.IntN(2) {
					a := netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(12))})
					if tenures[a] < maxFormer && !slices.Contains(w.Addrs, a) { // within what the past holds
						tenures[a]++
						w.Addrs = append(w.Addrs, a)
					}
				}
				slices.SortFunc(w.Addrs, netip.Addr.Compare)
				ids = append(ids, w.ID)
				ix.Upsert(w)
				slow.upsert(w)
			}
			v := ix.View()
			for i := range 12 {
				a := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
				got, want := "nobody", "nobody"
				if w := v.Owner(a); w != nil {
					got = w.ID
				}
				if c := slow.owner(a); c != nil {
					want = c.id
				}
				if got != want {
					t.Fatalf("round %d step %d: %s: index says %s, list says %s", round, step, a, got, want)
				}
			}
			coherent(t, v)
		}
	}
}

// coherent holds a view to what it promises.
func coherent(t *testing.T, v *View) {
	t.Helper()
	n := 0
	for i, w := range v.Workloads {
		if i > 0 && v.Workloads[i-1].ID >= w.ID {
			t.Fatal("workloads are not sorted")
		}
		if !w.HostNetwork {
			for _, a := range w.Addrs {
				n++
				if v.Owner(a) != w {
					t.Fatalf("%s has %s, which Owner gives to %v", w.ID, a, v.Owner(a))
				}
			}
		}
	}
	owned := 0
	for range v.Owned() {
		owned++
	}
	if n != owned {
		t.Fatalf("%d addresses of workloads, %d owned", n, owned)
	}
}

// TestAnyOrder: tenures of few addresses, delivered in any order in which each ADD comes before its
// own DEL, end in one state: the last tenure's owner, or nobody where that one has ended.
func TestAnyOrder(t *testing.T) {
	r := newRand(t)
	at := func(s int) time.Time { return time.Date(2026, 1, 1, 0, 0, s, 0, time.UTC) }
	type event struct {
		id  int
		add bool
	}
	for round := range 500 {
		n := 2 + r.IntN(maxFormer-1)
		ended := make([]bool, n)
		var events []event
		for i := range n {
			ended[i] = r.IntN(3) > 0
			events = append(events, event{i, true})
			if ended[i] {
				events = append(events, event{i, false})
			}
		}
		r.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		added := map[int]bool{}
		ix := NewIndex("n1")
		for len(events) > 0 { // a DEL waits for its ADD
			i := slices.IndexFunc(events, func(e event) bool { return e.add || added[e.id] })
			e := events[i]
			events = slices.Delete(events, i, i+1)
			if e.add {
				added[e.id] = true
				ix.Upsert(Workload{ID: fmt.Sprint(e.id), Namespace: "x", Name: fmt.Sprint(e.id), Source: SourceCNI, Since: at(e.id + 1), Addrs: addrs("10.0.0.1")})
			} else {
				ix.Withdraw(fmt.Sprint(e.id), SourceCNI)
			}
		}
		want := fmt.Sprint(n - 1)
		if ended[n-1] {
			want = "world"
		}
		if got := owner(ix, "10.0.0.1", time.Time{}); got != want {
			t.Fatalf("round %d: %v: got %s, want %s", round, ended, got, want)
		}
	}
}

// TestMergesCohere: inventory, Kubernetes, gossip and CNI speak of the same few pods in any order;
// views stay coherent, and an own record of this node is never hidden.
func TestMergesCohere(t *testing.T) {
	r := newRand(t)
	for range 300 {
		ix := NewIndex("n1")
		for range 40 {
			src := Source(1 + r.IntN(4))
			w := Workload{
				ID: fmt.Sprintf("%d-%d", src, r.IntN(4)), Namespace: "x", Name: fmt.Sprint(r.IntN(3)), Source: src,
				Node: []string{"", "n1", "n2"}[r.IntN(3)], HostNetwork: r.IntN(8) == 0,
			}
			if r.IntN(2) == 0 {
				w.Labels = Labels{"app": fmt.Sprint(r.IntN(3))}
			}
			for range r.IntN(3) {
				w.Addrs = append(w.Addrs, netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(6))}))
			}
			if r.IntN(3) == 0 {
				ix.Withdraw(w.ID, src)
			} else {
				ix.Upsert(w)
			}
			v := ix.View()
			coherent(t, v)
			for id, rec := range ix.records {
				if rec.told.Source == SourceCNI && v.Workload(id) == nil {
					t.Fatalf("%s runs and is not in the view", id)
				}
			}
		}
		for id, rec := range ix.records {
			ix.Withdraw(id, rec.told.Source)
		}
		if len(ix.records)+len(ix.groups)+len(ix.claims)+len(ix.owners) != 0 {
			t.Fatalf("left behind: %d records, %d groups, %d claims, %d owners", len(ix.records), len(ix.groups), len(ix.claims), len(ix.owners))
		}
	}
}

// TestPastIsBounded: churn leaves a bounded past behind.
func TestPastIsBounded(t *testing.T) {
	h := newHistory()
	for i := range maxPast * 3 {
		for range maxFormer + 2 {
			h.add(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), tenure{})
		}
	}
	for _, list := range h.former {
		if len(list) != maxFormer {
			t.Fatalf("%d former owners of one address", len(list))
		}
	}
	if len(h.former) != maxPast || len(h.order) > 2*maxPast+2 {
		t.Errorf("%d former, %d in order", len(h.former), len(h.order))
	}
}

// TestConcurrent is for the race detector: writers, namers and readers of views at once.
func TestConcurrent(t *testing.T) {
	ix := NewIndex("n1")
	var group sync.WaitGroup
	for g := range 4 {
		group.Add(1)
		go func() { // ends after its rounds; group counts it
			defer group.Done()
			for i := range 100 {
				id := fmt.Sprintf("%d-%d", g, i%10)
				a := netip.AddrFrom4([4]byte{10, 0, 0, byte(i % 40)})
				ix.Upsert(Workload{ID: id, Namespace: "x", Name: id, Source: SourceCNI, Addrs: []netip.Addr{a}, Labels: Labels{"app": "a"}})
				ix.Name(a, time.Now())
				v := ix.View()
				v.Peer(a)
				v.World()
				v.Labelled("app", "a")
				if i%3 == 0 {
					ix.Withdraw(id, SourceCNI)
				}
			}
		}()
	}
	group.Wait()
	coherent(t, ix.View())
}
