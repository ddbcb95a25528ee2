package lint

import (
	"cmp"
	"slices"
)

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
