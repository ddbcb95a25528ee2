package identity

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
)

// View gives the present picture. It is made once per generation and shared; nothing in it may be
// written to. What it costs grows with what changed since the last one, and only little with what there
// is.
func (ix *Index) View() *View {
	if v := ix.view.Load(); v != nil {
		return v
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if v := ix.view.Load(); v != nil {
		return v
	}
	v := ix.snapshotLocked(ix.last, ix.pending)
	ix.last, ix.pending = v, pending{}
	ix.view.Store(v)
	return v
}

// pending is what may not be as in the last view.
type pending struct {
	workloads map[string]bool // by ID
	services  bool
	told      bool // anything else
}

func (p *pending) touch(id string) {
	if p.workloads == nil {
		p.workloads = map[string]bool{}
	}
	p.workloads[id] = true
}

// snapshotLocked makes the view that follows another, or the first one (nil).
func (ix *Index) snapshotLocked(last *View, p pending) *View {
	v := &View{
		Generation: ix.generation, Node: ix.node,
		NodeAddrs: ix.nodeAddrs, Resolvers: ix.resolvers, Networks: ix.networks, PodBlocks: ix.podBlocks,
		Services: ix.services, Nodes: ix.nodes, NoNode: ix.noBuiltIn[0], NoDNS: ix.noBuiltIn[1],
		news: news{memo: &memo{}},
	}
	before := last
	if last == nil {
		before = &View{picture: newPicture()}
		p.services, p.told = true, true
		ix.neighbours = map[netip.Prefix]int{}
	}
	changes := ix.changesLocked(before, p.workloads)
	v.Workloads = merge(before.Workloads, changes)
	v.picture = before.picture.clone()
	v.around = ix.ownLocked(v, before, changes)
	v.enroll(changes)
	var keys []VIPKey
	if v.plan = before.plan; p.services {
		v.serveAnew(newPlan(ix.services))
	} else {
		keys = v.plan.serve(&v.picture, changes)
	}
	v.VIPNames = v.plan.names
	other := v.settle(before, p)
	if last != nil {
		v.news = last.news.follow(step{last.Generation, Delta{Changes: changes, VIPs: keys, Whole: other}})
	}
	return v
}

// changesLocked finds out what became of the workloads that were touched.
func (ix *Index) changesLocked(before *View, touched map[string]bool) []Change {
	out := make([]Change, 0, len(touched))
	for id := range touched {
		c := Change{Before: before.Workload(id)}
		if r := ix.records[id]; r != nil && !r.hidden {
			c.After = r.published
		}
		if c.Before != c.After {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, compareChanges)
	return out
}

// ownLocked brings the owners of addresses up to date, and gives the neighbourhoods of all of them.
func (ix *Index) ownLocked(v, before *View, changes []Change) []netip.Prefix {
	moved := false
	v.own(changes, func(a netip.Addr, by int) {
		p := neighbourhood(a)
		n := ix.neighbours[p] + by
		moved = moved || n == 0 || n == 1 && by > 0
		if ix.neighbours[p] = n; n == 0 {
			delete(ix.neighbours, p)
		}
	})
	if !moved {
		return before.around
	}
	return slices.SortedFunc(maps.Keys(ix.neighbours), ComparePrefixes)
}

// serveAnew works out who is behind every Service of a plan.
func (v *View) serveAnew(p *plan) {
	v.plan = p
	v.served.Clear(false)
	v.vips.Clear(false)
	v.fronts.Clear(false)
	p.front(&v.picture)
	all := make([]Change, len(v.Workloads))
	for i, w := range v.Workloads {
		all[i].After = w
	}
	p.serve(&v.picture, all)
}

// settle works out what depends on more than workloads, and says whether anything beside workloads and
// those behind Services is not as it was.
func (v *View) settle(before *View, p pending) (other bool) {
	v.hosts, v.cluster, v.world, v.nets = before.hosts, before.cluster, before.world, before.nets
	if p.told {
		v.nets, v.cluster = longestFirst(v.Networks), clusterBlocks(v)
	}
	if p.told || !slices.Equal(v.atHosts, before.atHosts) {
		if hosts := hostAddrs(v); !reflect.DeepEqual(hosts, before.hosts) {
			v.hosts, other = hosts, true
		}
	}
	if p.told || p.services || !slices.Equal(v.around, before.around) {
		if world := worldBlocks(v); !slices.Equal(world, before.world) {
			v.world, other = world, true
		}
	}
	return other || p.told || p.services
}
