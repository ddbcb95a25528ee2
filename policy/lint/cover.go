package lint

import (
	"cmp"
	"slices"
)

// touches says whether b admits at least one of r's peers on one of r's ports.
func (r *rule) touches(b *rule) bool {
	return slices.ContainsFunc(r.ports, func(p ports) bool { return slices.ContainsFunc(b.ports, func(q ports) bool { return !p.disjoint(q) }) }) &&
		slices.ContainsFunc(r.peers, func(p peer) bool { return slices.ContainsFunc(b.peers, p.within) })
}

// cover finds rules that together match everything that r matches: each of its peers on each of its
// ports by one of them. Those come first that do most.
func cover(r *rule, by []*rule) (used []*rule, all bool) {
	type cell struct{ peer, port int }
	slices.SortStableFunc(by, func(a, b *rule) int {
		return cmp.Or(compareBool(r.coveredBy(b), r.coveredBy(a)), a.index-b.index)
	})
	open := map[cell]bool{}
	for i := range r.peers {
		for j := range r.ports {
			open[cell{i, j}] = true
		}
	}
	for _, b := range by {
		had := len(open)
		for c := range open {
			if slices.ContainsFunc(b.peers, r.peers[c.peer].within) && r.ports[c.port].within(b.ports) {
				delete(open, c)
			}
		}
		if len(open) < had {
			used = append(used, b)
		}
		if len(open) == 0 {
			return used, true
		}
	}
	return nil, false
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
