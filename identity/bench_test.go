package identity

import (
	"fmt"
	"net/netip"
	"testing"
)

// town is an index of n workloads in ten namespaces, with a Service for each ten of them.
func town(n int) *Index {
	ix := NewIndex("n1")
	for i := range n {
		ix.Upsert(resident(i, n))
	}
	var vips []KubeService
	for i := range n / 10 {
		vips = append(vips, KubeService{
			Namespace: fmt.Sprintf("ns%d", i%10), Name: fmt.Sprintf("app%d", i), Selector: Labels{"app": fmt.Sprintf("app%d", i)},
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})}, Ports: []ServicePort{{Port: 80, Target: 8080}},
		})
	}
	ix.SetServices(vips)
	return ix
}

func resident(i, n int) Workload {
	app := i % (n / 10)
	return Workload{
		ID: fmt.Sprintf("w%06d", i), Namespace: fmt.Sprintf("ns%d", app%10), Name: fmt.Sprintf("pod%d", i),
		Labels: Labels{"app": fmt.Sprintf("app%d", app), "env": "prod", "team": fmt.Sprintf("t%d", i%7)}, Ports: []ContainerPort{{"http", TCP, 8080}},
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(1 + i>>16), byte(i >> 8), byte(i)})}, Source: SourceGossip,
	}
}

// BenchmarkViewAfterChange: one workload goes or comes, and somebody looks: who has an address, who
// carries a label, who is behind a Service.
func BenchmarkViewAfterChange(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("workloads=%d", n), func(b *testing.B) {
			ix := town(n)
			w := resident(n/2, n)
			ask(b, ix.View(), w, n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%2 == 0 {
					ix.Withdraw(w.ID, SourceGossip)
				} else {
					ix.Upsert(w)
				}
				ask(b, ix.View(), w, n)
			}
		})
	}
}

// BenchmarkViewFirst: all of them at once, as at a start.
func BenchmarkViewFirst(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprintf("workloads=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				ix := town(n)
				b.StartTimer()
				ask(b, ix.View(), resident(n/2, n), n)
			}
		})
	}
}

func ask(b *testing.B, v *View, w Workload, n int) {
	others := n/10 - 1
	if v.Peer(w.Addrs[0]).Kind == Pod {
		others = n / 10
	}
	_ = others
	if len(v.Labelled("app", w.Labels["app"])) < 9 || len(v.World()) == 0 || len(v.VIPKeys()) != n/10 {
		b.Fatal("the view is wrong")
	}
}
