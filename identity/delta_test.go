package identity

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/btree"
)

// TestViewsFollowOneAnother: whatever comes and goes between two looks, a view that follows another is
// the one that would be made from nothing, older views stay as they were, and Since tells the truth.
func TestViewsFollowOneAnother(t *testing.T) {
	r := newRand(t)
	steps, told := 0, 0
	for range 25 {
		ix := NewIndex("n1")
		var seen []*View
		var pictures []string
		for range 40 {
			for range 1 + r.IntN(4) {
				disturb(ix, r)
			}
			v := ix.View()
			coherent(t, v)
			ix.mu.Lock()
			neighbours := ix.neighbours
			all := pending{}
			for id := range ix.records {
				all.touch(id)
			}
			fresh := ix.snapshotLocked(nil, all)
			if ix.neighbours, neighbours = neighbours, ix.neighbours; !maps.Equal(neighbours, ix.neighbours) {
				t.Fatalf("neighbours %v, want %v", ix.neighbours, neighbours)
			}
			ix.mu.Unlock()
			got, want := strings.Split(draw(v), "\n"), strings.Split(draw(fresh), "\n")
			for i := range got {
				if i >= len(want) || got[i] != want[i] {
					t.Fatalf("a view that follows others:\n%s\nfrom nothing:\n%s", got[i], want[min(i, len(want)-1)])
				}
			}
			seen, pictures = append(seen, v), append(pictures, draw(v))
			i := r.IntN(len(seen))
			if draw(seen[i]) != pictures[i] {
				t.Fatal("a view changed")
			}
			steps++
			if d := v.Since(seen[i].Generation); !d.Whole {
				told++
				honest(t, seen[i], v, d)
			}
		}
	}
	t.Logf("%d views, %d deltas", steps, told)
}

// disturb changes one thing.
func disturb(ix *Index, r *rand.Rand) {
	switch r.IntN(40) {
	case 0:
		ix.SetNode([]netip.Addr{netip.AddrFrom4([4]byte{192, 168, 0, byte(r.IntN(3))})})
	case 1:
		ix.SetNamespaceLabels(map[string]Labels{"x": {"a": fmt.Sprint(r.IntN(2))}})
	case 2:
		ix.SetPodBlocks([]netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(2)), 0, 0}), 16)})
	case 3, 4, 5:
		var list []KubeService
		for i := range r.IntN(4) {
			s := KubeService{Namespace: []string{"x", "y"}[r.IntN(2)], Name: fmt.Sprint("s", r.IntN(3)), Selector: Labels{"app": fmt.Sprint(r.IntN(3))},
				Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 0, byte(i)}), netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(30))})}[:1+r.IntN(2)],
				Ports: []ServicePort{{Port: 80, TargetName: "http"}, {Port: 81}}}
			if r.IntN(3) == 0 {
				s.Selector["v"] = "1"
			}
			list = append(list, s)
		}
		ix.SetServices(list)
	default:
		src := Source(1 + r.IntN(4))
		id := fmt.Sprintf("%d-%d", src, r.IntN(12))
		if r.IntN(4) == 0 {
			ix.Withdraw(id, src)
			return
		}
		w := Workload{ID: id, Namespace: []string{"x", "y"}[r.IntN(2)], Name: fmt.Sprint(r.IntN(8)), Source: src,
			Node: []string{"", "n1", "n2"}[r.IntN(3)], HostNetwork: r.IntN(8) == 0, Labels: Labels{}}
		if r.IntN(4) > 0 {
			w.Labels["app"] = fmt.Sprint(r.IntN(3))
		}
		if r.IntN(2) == 0 {
			w.Labels["v"] = fmt.Sprint(r.IntN(2))
		}
		if r.IntN(3) > 0 {
			w.Ports = []ContainerPort{{"http", TCP, uint16(8080 + r.IntN(2))}}
		}
		for range r.IntN(3) {
			w.Addrs = append(w.Addrs, netip.AddrFrom4([4]byte{10, byte(r.IntN(2)), byte(r.IntN(2)), byte(r.IntN(30))}))
		}
		ix.Upsert(w)
	}
}

// draw is all that a view answers, as text.
func draw(v *View) string {
	out := fmt.Sprintln(v.Node, v.NodeAddrs, v.hosts, v.World(), v.Cluster(), v.VIPNames, v.VIPKeys(), v.Generation)
	ids := func(list []*Workload) (s []string) {
		for _, w := range list {
			s = append(s, w.ID)
		}
		return s
	}
	for _, w := range v.Workloads {
		out += fmt.Sprintln(*w, w == v.Workload(w.ID))
	}
	for a, w := range v.Owned() {
		out += fmt.Sprintln(a, w.ID)
	}
	for _, rolls := range []*btree.BTreeG[roll]{v.spaces, v.labels, v.served} {
		rolls.Ascend(func(x roll) bool { out += fmt.Sprintln(x.rollKey, ids(x.list)); return true })
	}
	out += fmt.Sprintln(ids(v.atHosts))
	for _, k := range v.VIPKeys() {
		for _, b := range v.Backends(k) {
			out += fmt.Sprintln(k, b.Workload.ID, b.Port, b.Workload == v.Workload(b.Workload.ID))
		}
	}
	v.fronts.Ascend(func(f front) bool { out += fmt.Sprintln(f); return true })
	return out
}

// honest holds a delta against the two views.
func honest(t *testing.T, old, v *View, d Delta) {
	t.Helper()
	now := map[string]*Workload{}
	for _, w := range old.Workloads {
		now[w.ID] = w
	}
	for _, c := range d.Changes {
		if id := c.id(); c.Before != now[id] || c.Before == c.After {
			t.Fatalf("%s was %v and is told to have been %v", id, now[id], c.Before)
		}
		if now[c.id()] = c.After; c.After == nil {
			delete(now, c.id())
		}
	}
	want := map[string]*Workload{}
	for _, w := range v.Workloads {
		want[w.ID] = w
	}
	if !maps.Equal(now, want) {
		t.Fatalf("the old view with the changes has %v, the new one %v", now, want)
	}
	if !reflect.DeepEqual([]any{old.hosts, old.world, old.cluster, old.VIPNames, old.Services}, []any{v.hosts, v.world, v.cluster, v.VIPNames, v.Services}) {
		t.Fatal("more changed than was told")
	}
	for _, k := range v.VIPKeys() {
		_, said := slices.BinarySearchFunc(d.VIPs, k, compareVIPs)
		if !said && !slices.Equal(old.Backends(k), v.Backends(k)) {
			t.Fatalf("others are behind %v, which was not told", k)
		}
	}
}

// TestNewsAreBounded: what a view remembers does not grow without end, and who asks for more is told so.
func TestNewsAreBounded(t *testing.T) {
	ix := NewIndex("n1")
	var views []*View
	for i := range 3 * maxNews {
		ix.Upsert(Workload{ID: "a", Namespace: "x", Name: "a", Source: SourceGossip, Labels: Labels{"i": fmt.Sprint(i)}, Addrs: addrs("10.0.0.1")})
		views = append(views, ix.View())
	}
	v := ix.View()
	if n := len(v.news.steps); n != maxNews {
		t.Errorf("%d steps", n)
	}
	if d := v.Since(views[0].Generation); !d.Whole {
		t.Error("news of long ago")
	}
	if d := v.Since(views[len(views)-maxNews-1].Generation); d.Whole || len(d.Changes) != 1 || d.Changes[0].After != v.Workloads[0] {
		t.Errorf("the oldest news: %+v", d)
	}
	if d := v.Since(v.Generation); !d.Empty() {
		t.Errorf("news of itself: %+v", d)
	}
}
