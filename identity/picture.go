package identity

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/google/btree"
)

// degree of the trees: what one change copies is a node of at most twice as many items a level.
const degree = 16

// picture is the part of a view that follows from its workloads. Its trees and lists are never written
// to once a view has them: the next view's share all nodes that did not change.
type picture struct {
	atHosts []*Workload // in the node's network namespace, sorted by ID
	owners  *btree.BTreeG[owning]
	spaces  *btree.BTreeG[roll]    // by namespace
	labels  *btree.BTreeG[roll]    // by label and value
	served  *btree.BTreeG[roll]    // by namespace and name of a Service: the workloads that it selects
	vips    *btree.BTreeG[backing] // the workloads behind every port of every Service
	fronts  *btree.BTreeG[front]
}

type owning struct {
	addr     netip.Addr
	workload *Workload
}

// roll is the workloads that have a name in common, sorted by ID.
type roll struct {
	rollKey
	list []*Workload
}

type rollKey struct{ name, value string }

type backing struct {
	key      VIPKey
	backends []Backend // sorted by workload ID
}

// front says that an address is a Service's, or of a workload behind it.
type front struct {
	addr netip.Addr
	key  VIPKey
}

func newPicture() picture {
	rolls := func(a, b roll) bool { return a.name < b.name || a.name == b.name && a.value < b.value }
	return picture{
		owners: btree.NewG(degree, func(a, b owning) bool { return a.addr.Less(b.addr) }),
		spaces: btree.NewG(degree, rolls),
		labels: btree.NewG(degree, rolls),
		served: btree.NewG(degree, rolls),
		vips:   btree.NewG(degree, func(a, b backing) bool { return compareVIPs(a.key, b.key) < 0 }),
		fronts: btree.NewG(degree, func(a, b front) bool {
			if c := a.addr.Compare(b.addr); c != 0 {
				return c < 0
			}
			return compareVIPs(a.key, b.key) < 0
		}),
	}
}

// clone gives a picture that may be written to; the old one stays as it is.
func (p picture) clone() picture {
	return picture{
		atHosts: p.atHosts, owners: p.owners.Clone(), spaces: p.spaces.Clone(), labels: p.labels.Clone(),
		served: p.served.Clone(), vips: p.vips.Clone(), fronts: p.fronts.Clone(),
	}
}

// Change is one workload as it was and as it is; nil where it was not there, or is gone.
type Change struct{ Before, After *Workload }

func (c Change) id() string { return c.workload().ID }

// workload is the latest that is known of it.
func (c Change) workload() *Workload {
	if c.After != nil {
		return c.After
	}
	return c.Before
}

// own gives addresses to their new owners, and counts: one more that is owned, or one less.
func (p *picture) own(changes []Change, count func(a netip.Addr, by int)) {
	for _, c := range changes {
		after := c.After.own()
		for _, a := range c.Before.own() {
			if !slices.Contains(after, a) {
				p.owners.Delete(owning{addr: a})
				count(a, -1)
			}
		}
	}
	for _, c := range changes {
		before := c.Before.own()
		for _, a := range c.After.own() {
			p.owners.ReplaceOrInsert(owning{a, c.After})
			if !slices.Contains(before, a) {
				count(a, 1)
			}
		}
	}
}

// own lists the addresses that are the workload's and not its node's.
func (w *Workload) own() []netip.Addr {
	if w == nil || w.HostNetwork {
		return nil
	}
	return w.Addrs
}

// enroll brings the lists of workloads up to date. Changes are sorted by ID.
func (p *picture) enroll(changes []Change) {
	spaces, labels, hosts := rolling{}, rolling{}, rolling{}
	for _, c := range changes {
		for _, half := range []Change{{Before: c.Before}, {After: c.After}} {
			w := half.workload()
			if w == nil {
				continue
			}
			spaces.note(rollKey{name: w.Namespace}, half)
			for k, val := range w.Labels {
				labels.note(rollKey{k, val}, half)
			}
			if w.HostNetwork {
				hosts.note(rollKey{}, half)
			}
		}
	}
	spaces.revise(p.spaces)
	labels.revise(p.labels)
	p.atHosts = merge(p.atHosts, hosts[rollKey{}])
}

// rolling is what changes in each list, sorted by ID.
type rolling map[rollKey][]Change

// note adds half a change: a workload that leaves a list, or comes to it. One that stays comes with both
// halves, one right after the other.
func (r rolling) note(key rollKey, half Change) {
	list := r[key]
	if n := len(list); n > 0 && list[n-1].id() == half.id() {
		list[n-1].After = half.After
		return
	}
	r[key] = append(list, half)
}

func (r rolling) revise(rolls *btree.BTreeG[roll]) {
	for key, changes := range r {
		old, _ := rolls.Get(roll{rollKey: key})
		if list := merge(old.list, changes); len(list) == 0 {
			rolls.Delete(old)
		} else {
			rolls.ReplaceOrInsert(roll{key, list})
		}
	}
}

// merge makes a list with the changes made, which are sorted by ID as the list is.
func merge(list []*Workload, changes []Change) []*Workload {
	if len(changes) == 0 {
		return list
	}
	out := make([]*Workload, 0, len(list)+len(changes))
	for _, c := range changes {
		at, found := slices.BinarySearchFunc(list, c.id(), compareID)
		out = append(out, list[:at]...)
		if list = list[at:]; found {
			list = list[1:]
		}
		if c.After != nil {
			out = append(out, c.After)
		}
	}
	return append(out, list...)
}

func compareChanges(a, b Change) int { return strings.Compare(a.id(), b.id()) }
