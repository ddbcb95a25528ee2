package flow

import "github.com/bulkhead-firewall/bulkhead/identity"

// group is the edges that differ only in an address of the world. When there are too many they are
// folded to one edge, all of them, so that the result does not depend on which came first.
type group struct {
	keys   []Key // of edges in the graph; nil once folded
	folded bool
}

// groupOf returns the group of a key with an address of the world, or nil.
func (g *Graph) groupOf(k Key) *group {
	if k.Client.Kind != identity.World && k.Server.Kind != identity.World {
		return nil
	}
	return g.world[k.Wide()]
}

// addLocked makes an edge for a key that has none. It returns nil when a bound forbids it, and
// whether the edge it returns is the fold of many world addresses.
func (g *Graph) addLocked(k Key) (n *node, folded bool) {
	wide := k.Wide()
	if k.Client.Kind == identity.World || k.Server.Kind == identity.World {
		grp := g.world[wide]
		if grp != nil && !grp.folded && k != wide && len(grp.keys) >= g.lim.WorldAddrs {
			return g.foldGroupLocked(wide, grp), true
		}
		if n = g.insertLocked(k); n == nil {
			return nil, false
		}
		if grp == nil {
			grp = &group{}
			g.world[wide] = grp
		}
		if grp.folded = grp.folded || k == wide; !grp.folded {
			grp.keys = append(grp.keys, k)
		}
		return n, grp.folded
	}
	return g.insertLocked(k), false
}

// foldGroupLocked replaces all edges of a group by one. It needs less room than it frees.
func (g *Graph) foldGroupLocked(wide Key, grp *group) *node {
	sum := &node{Edge: Edge{Key: wide}}
	for _, k := range grp.keys {
		sum.merge(&g.edges[k].Edge, g.lim)
		g.removeLocked(k)
	}
	grp.keys, grp.folded = nil, true
	g.stats.Folded++
	g.edges[wide] = sum
	g.clients[charge(wide)]++
	delete(g.removed, wide)
	g.markLocked(sum)
	return sum
}

// insertLocked puts an empty edge into the graph, or returns nil when a bound is reached.
func (g *Graph) insertLocked(k Key) *node {
	payer := charge(k)
	if len(g.edges) >= g.lim.Edges || g.clients[payer] >= g.lim.PerClient {
		return nil
	}
	n := &node{Edge: Edge{Key: k}}
	g.edges[k] = n
	g.clients[payer]++
	delete(g.removed, k)
	return n
}

func (g *Graph) removeLocked(k Key) {
	n := g.edges[k]
	if n == nil {
		return
	}
	delete(g.edges, k)
	if payer := charge(k); g.clients[payer] > 1 {
		g.clients[payer]--
	} else {
		delete(g.clients, payer)
	}
	if n.saved {
		g.removed[k] = struct{}{}
	}
}
