package gossip

import (
	"fmt"
	"testing"
	"time"
)

// A node that knows nothing joins a cluster of 50 nodes with 20,000 endpoints, over real UDP and TCP: how
// long until it knows all of them.
func BenchmarkColdStart(b *testing.B) {
	const nodes, each = 50, 400
	keys := [][]byte{secret(1)}
	var cluster []*Cluster
	var seeds []string
	for n := range nodes {
		g := startNode(b, fmt.Sprintf("n%d", n), "shop", keys, seeds...)
		cluster = append(cluster, g)
		seeds = []string{cluster[0].address()}
		var entries []Entry
		for i := range each {
			entries = append(entries, Entry{Key: fmt.Sprintf("%064x", n*each+i), Value: make([]byte, 200)})
		}
		if _, err := g.State.Write(Endpoints, entries...); err != nil {
			b.Fatal(err)
		}
	}
	known := func(g *Cluster) (n int) {
		for _, owner := range g.State.Owners() {
			n += len(g.State.Entries(owner, Endpoints))
		}
		return n
	}
	within(b, time.Minute, "all nodes know all endpoints", func() bool {
		for _, g := range cluster {
			if known(g) < nodes*each {
				return false
			}
		}
		return true
	})
	b.ResetTimer()
	for i := range b.N {
		late := startNode(b, fmt.Sprintf("late-%d", i), "shop", keys, seeds...)
		within(b, time.Minute, "the late node knows all endpoints", func() bool { return known(late) == nodes*each })
		b.StopTimer()
		_ = late.Close()
		b.StartTimer()
	}
}
