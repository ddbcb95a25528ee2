package policy

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// Affected says whose sides a change of identities can touch. It may name a workload whose sides stay
// as they are, and never leaves out one whose sides change.
type Affected struct {
	all     bool
	egress  bool                    // everybody whom rules of egress are about
	ids     map[string]bool         // workloads that changed, or are behind a Service where others changed
	spaces  map[string][]selectedBy // policies of a namespace that are about the change
	cluster []selectedBy
	open    map[selectedBy]bool // those that are in spaces or cluster
}

// selectedBy is a policy with the direction in which it is about the change.
type selectedBy struct {
	*compiled
	dir Direction
}

// Affected finds whose sides differ between an earlier view of the same index and this one, given how
// they differ ([identity.View.Since]). What it costs depends on what changed and on the rules about
// that, not on the number of workloads or policies. The set must be the same for both views.
func (s *Set) Affected(v *identity.View, d identity.Delta) *Affected {
	a := &Affected{all: d.Whole, ids: map[string]bool{}, spaces: map[string][]selectedBy{}, open: map[selectedBy]bool{}}
	if d.Whole {
		return a
	}
	f := &finder{Affected: a, links: s.linked(), view: v}
	for _, c := range d.Changes {
		f.change(c)
		if len(d.VIPs) > 0 { // it may be the one that has left
			f.behind(c.Before)
			f.behind(c.After)
		}
	}
	for _, key := range d.VIPs {
		f.port(key)
	}
	return a
}

// Includes says whether the sides of a workload may have changed.
func (a *Affected) Includes(w *identity.Workload) bool {
	if a.all || a.ids[w.ID] {
		return true
	}
	if w.HostNetwork {
		return false
	}
	if a.egress {
		return true
	}
	about := func(p selectedBy) bool { return p.selected(w) }
	return slices.ContainsFunc(a.spaces[w.Namespace], about) || slices.ContainsFunc(a.cluster, about)
}

// finder is at work on one Affected.
type finder struct {
	*Affected
	*links
	view     *identity.View
	services map[string]*identity.KubeService // by "namespace/name", once needed
}

// hit notes that a rule is about the change.
func (f *finder) hit(x link) {
	by := selectedBy{x.policy, x.dir}
	if f.open[by] {
		return
	}
	f.open[by] = true
	if x.policy.spaces != nil {
		f.cluster = append(f.cluster, by)
	} else {
		f.spaces[x.policy.Namespace] = append(f.spaces[x.policy.Namespace], by)
	}
}

// change finds who is told of one workload's change: those with rules that meant it, or mean it now.
func (f *finder) change(c identity.Change) {
	for _, w := range []*identity.Workload{c.Before, c.After} {
		if w != nil {
			f.ids[w.ID] = true
		}
	}
	same := c.Before != nil && c.After != nil && sameReach(c.Before, c.After)
	if same && c.Before.Namespace == c.After.Namespace &&
		maps.Equal(c.Before.Labels, c.After.Labels) && maps.Equal(c.Before.NamespaceLabels, c.After.NamespaceLabels) {
		return // another node, source or service: nothing that a rule asks for
	}
	for _, w := range []*identity.Workload{c.Before, c.After} {
		if w == nil {
			continue
		}
		f.selectable(w, func(x link) {
			if !same && x.peer.means(w) || same && x.peer.means(c.Before) != x.peer.means(c.After) {
				f.hit(x)
			}
		})
		for _, x := range f.served[w.Namespace] {
			if f.serves(x.peer.service, w) {
				f.hit(x)
			}
		}
		if !same {
			f.addresses(w)
		}
	}
}

// sameReach says that a workload is reached in the same way as before.
func sameReach(a, b *identity.Workload) bool {
	return a.HostNetwork == b.HostNetwork && slices.Equal(a.Addrs, b.Addrs) && slices.Equal(a.Ports, b.Ports)
}

// means says whether a peer by labels, or the network "cluster", is that workload.
func (p *peer) means(w *identity.Workload) bool {
	if w.HostNetwork || len(w.Addrs) == 0 {
		return false
	}
	return !p.selects || p.selected(w)
}

// serves says whether a Service selects a workload, as it was or is.
func (f *finder) serves(ref *ServiceRef, w *identity.Workload) bool {
	if f.services == nil {
		f.services = make(map[string]*identity.KubeService, len(f.view.Services))
		for i := range f.view.Services {
			s := &f.view.Services[i]
			f.services[s.Namespace+"/"+s.Name] = s
		}
	}
	s := f.services[ref.Namespace+"/"+ref.Name]
	return s != nil && s.Selects(w)
}

// addresses finds the rules that look up a port's name at whoever owns an address.
func (f *finder) addresses(w *identity.Workload) {
	for _, x := range f.loose {
		if x.byPortName() {
			f.hit(x)
		}
	}
	for _, a := range w.Addrs {
		for _, x := range f.named {
			if x.peer == nil || inBlocks(x.peer.pieces, a) {
				f.hit(x)
			}
		}
		for _, x := range f.nets {
			if x.byPortName() && inBlocks(x.peer.networkBlocks(f.view), a) {
				f.hit(x)
			}
		}
		if _, virtual := f.view.VIPNames[a]; virtual { // a workload's address is no Service's
			for _, key := range f.view.PortsOf(a) {
				f.port(key)
			}
		}
	}
}

// port finds who is told that others are behind a Service's port now: a client's right to it hangs on
// all workloads there, and on rules about the address itself where there are none.
func (f *finder) port(key identity.VIPKey) {
	f.addressBehind(key.Addr)
	for _, x := range f.loose {
		f.hit(x)
	}
	var last *identity.Workload
	for _, b := range f.view.Backends(key) {
		w := b.Workload
		f.ids[w.ID] = true
		if alike := last != nil && !w.HostNetwork && last.Namespace == w.Namespace && maps.Equal(last.Labels, w.Labels); alike {
			f.addressesBehind(w)
			continue // most are
		}
		f.behind(w)
		last = w
	}
}

// behind finds who may talk with a workload that is, or was, behind a Service.
func (f *finder) behind(w *identity.Workload) {
	if w == nil {
		return
	}
	f.addressesBehind(w)
	f.meant(w)
	if w.HostNetwork { // it is judged by its address, which is another's perhaps
		for _, a := range w.Addrs {
			if owner := f.view.Owner(a); owner != nil {
				f.meant(owner)
			}
		}
	}
}

// meant finds the egress rules that mean a workload.
func (f *finder) meant(w *identity.Workload) {
	f.selectable(w, func(x link) {
		if x.dir == Egress && x.peer.means(w) {
			f.hit(x)
		}
	})
	for _, x := range f.served[w.Namespace] {
		if x.dir == Egress && f.serves(x.peer.service, w) {
			f.hit(x)
		}
	}
}

func (f *finder) addressesBehind(w *identity.Workload) {
	for _, a := range w.Addrs {
		f.addressBehind(a)
	}
}

// addressBehind finds who may talk with a Service's address, or one behind it, by address.
func (f *finder) addressBehind(a netip.Addr) {
	f.around(f.view, a, f.hit)
	if !f.view.NoDNS && slices.Contains(f.view.Resolvers, a) {
		f.egress = true // whoever is isolated may ask it
	}
}
