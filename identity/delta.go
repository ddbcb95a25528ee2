package identity

import (
	"maps"
	"slices"
	"sync"
)

// What a view remembers of how it came to be.
const (
	maxNews        = 256    // steps from one view to the next
	maxNewsChanges = 16_384 // workloads in all of them
)

// Delta is how two views of one [Index] differ.
type Delta struct {
	Changes []Change // of workloads, sorted by ID
	VIPs    []VIPKey // ports of Services behind which there are others now; sorted
	// Whole says that something else changed, or too much: nodes, resolvers, networks, Services, the
	// world. Nothing of the former view can be relied on; the rest of the Delta is empty.
	Whole bool
}

// Empty says that the views are the same to whoever looks.
func (d Delta) Empty() bool { return !d.Whole && len(d.Changes) == 0 && len(d.VIPs) == 0 }

// step is what changed from one view to the next.
type step struct {
	from uint64 // generation
	Delta
}

// news is the latest steps up to a view, and what was asked of them.
type news struct {
	steps []step // each begins where the one before it ended
	*memo
}

// memo keeps the last answer: all workloads of a node ask the same.
type memo struct {
	mu    sync.Mutex
	since uint64
	known bool
	delta Delta
}

// follow is the news of the next view.
func (n news) follow(s step) news {
	if s.Whole || len(s.Changes) > maxNewsChanges {
		s.Delta = Delta{Whole: true}
	}
	steps := append(n.steps, s) // no other view follows this one, so the array behind is ours
	total := 0
	for i := len(steps) - 1; i >= 0; i-- {
		if total += len(steps[i].Changes); total > maxNewsChanges || len(steps)-i > maxNews {
			steps = steps[i+1:]
			break
		}
	}
	return news{steps, &memo{}}
}

// Since tells how this view differs from that of an earlier generation of the same index.
func (v *View) Since(generation uint64) Delta {
	if generation == v.Generation {
		return Delta{}
	}
	if v.news.memo == nil {
		return Delta{Whole: true}
	}
	m := v.news.memo
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.known || m.since != generation {
		m.since, m.known, m.delta = generation, true, join(v.news.steps, generation)
	}
	return m.delta
}

// join makes one delta of all steps that begin at a generation or later.
func join(steps []step, from uint64) Delta {
	i := slices.IndexFunc(steps, func(s step) bool { return s.from == from })
	if i < 0 {
		return Delta{Whole: true}
	}
	if steps = steps[i:]; len(steps) == 1 {
		return steps[0].Delta
	}
	first, last := map[string]Change{}, map[string]Change{}
	vips := map[VIPKey]bool{}
	for _, s := range steps {
		if s.Whole {
			return Delta{Whole: true}
		}
		for _, c := range s.Changes {
			id := c.id()
			if _, known := first[id]; !known {
				first[id] = c
			}
			last[id] = c
		}
		for _, key := range s.VIPs {
			vips[key] = true
		}
	}
	var d Delta
	for id, c := range first {
		if c.After = last[id].After; c.Before != c.After {
			d.Changes = append(d.Changes, c)
		}
	}
	slices.SortFunc(d.Changes, compareChanges)
	d.VIPs = slices.SortedFunc(maps.Keys(vips), compareVIPs)
	return d
}
