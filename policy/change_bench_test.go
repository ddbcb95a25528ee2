package policy

import (
	"fmt"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// townOf is an index of n workloads and p policies (see bigTown), and which of them are local: one of
// ten, at most a hundred.
func townOf(b *testing.B, n, p int) (*Set, *identity.Index, []string) {
	b.Helper()
	s, ix := bigTownIndex(b, n, p)
	var local []string
	for i := range min(100, n/10) {
		local = append(local, ix.View().Workloads[i].ID)
	}
	return s, ix, local
}

// newcomer is a workload that goes and comes: one that the first three policies select as a peer.
func newcomer(b *testing.B, ix *identity.Index) identity.Workload {
	b.Helper()
	v := ix.View()
	for i := len(v.Workloads) - 1; i >= 0; i-- {
		if w := v.Workloads[i]; w.Labels["app"] == "app3" {
			return *w
		}
	}
	b.Fatal("nobody is of app3")
	return identity.Workload{}
}

func comeOrGo(ix *identity.Index, i int, w identity.Workload) {
	if i%2 == 0 {
		ix.Withdraw(w.ID, w.Source)
	} else {
		ix.Upsert(w)
	}
}

// BenchmarkChange is what a node does when one workload among many comes or goes: a new view, who is
// touched by it, and their sides brought up to date ("touched"), against the sides of all local workloads
// from nothing ("all").
func BenchmarkChange(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		for _, p := range []int{10, 100, 1000} {
			name := fmt.Sprintf("workloads=%d/policies=%d", n, p)
			b.Run(name+"/touched", func(b *testing.B) { benchChange(b, n, p, false) })
			b.Run(name+"/all", func(b *testing.B) { benchChange(b, n, p, true) })
		}
	}
}

func benchChange(b *testing.B, n, p int, all bool) {
	s, ix, local := townOf(b, n, p)
	w := newcomer(b, ix)
	node := &benchNode{set: s, before: ix.View(), compilers: map[string]*Compiler{}}
	for _, id := range local {
		node.compilers[id] = &Compiler{}
	}
	node.follow(ix.View(), true, false)
	node.done = 0
	begin := cpuTime()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		comeOrGo(ix, i, w)
		node.follow(ix.View(), all, all)
	}
	b.ReportMetric(float64((cpuTime()-begin).Nanoseconds())/float64(b.N)/1000, "cpu-µs/op")
	b.ReportMetric(float64(node.done)/float64(b.N), "workloads/op")
}

// benchNode has the local workloads of a node.
type benchNode struct {
	set       *Set
	before    *identity.View
	compilers map[string]*Compiler // by ID
	done      int                  // workloads looked at
}

// follow brings up to date those that are touched by what changed, or all; anew: from nothing.
func (n *benchNode) follow(v *identity.View, all, anew bool) {
	touched := n.set.Affected(v, v.Since(n.before.Generation))
	for id, c := range n.compilers {
		me := v.Workload(id)
		if me == nil || !all && !touched.Includes(me) {
			continue
		}
		n.done++
		if anew {
			n.set.Entries(v, me)
		} else {
			c.Sides(n.set, v, me)
		}
	}
	n.before = v
}

// BenchmarkAffected is the part of it that finds who is touched, for all local workloads.
func BenchmarkAffected(b *testing.B) {
	for _, p := range []int{10, 100, 1000, 10_000} {
		b.Run(fmt.Sprintf("workloads=10000/policies=%d", p), func(b *testing.B) {
			s, ix, local := townOf(b, 10_000, p)
			w := newcomer(b, ix)
			before := ix.View()
			comeOrGo(ix, 0, w)
			after := ix.View()
			delta := after.Since(before.Generation)
			s.linked()
			b.ReportAllocs()
			begin := cpuTime()
			for b.Loop() {
				touched := s.Affected(after, delta)
				for _, id := range local {
					touched.Includes(after.Workload(id))
				}
			}
			b.ReportMetric(float64((cpuTime()-begin).Nanoseconds())/float64(b.N)/1000, "cpu-µs/op")
		})
	}
}

// BenchmarkSet is policies put together, and one of them replaced, as an apply does.
func BenchmarkSet(b *testing.B) {
	for _, p := range []int{1000, 10_000, 100_000} {
		var list []Policy
		for i := range p {
			one := parsed(b, fmt.Sprintf("apiVersion: bulkhead.dev/v1alpha1\nkind: Policy\nmetadata: {name: p%d, namespace: ns%d}\nspec: {podSelector: {matchLabels: {app: app%d}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}\n", i, i%100, i))
			list = append(list, one...)
		}
		s, err := NewSet(list...)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("policies=%d/new", p), func(b *testing.B) {
			for b.Loop() {
				_, _ = NewSet(list...)
			}
		})
		b.Run(fmt.Sprintf("policies=%d/with", p), func(b *testing.B) {
			for b.Loop() {
				_, _ = s.With(list[p/2])
			}
		})
		b.Run(fmt.Sprintf("policies=%d/without", p), func(b *testing.B) {
			for b.Loop() {
				s.Without(list[p/2].Key())
			}
		})
	}
}
