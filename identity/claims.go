package identity

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// tenure is an address's owner and the span in which it was; until is zero for the present one.
type tenure struct {
	record   *record
	workload *Workload
	source   Source
	from     time.Time
	until    time.Time
}

// claimLocked brings r's claims in line with r.told. Claims that it has made before in the same way
// stay as they are, lost ones too. It returns the addresses whose owner may have changed.
func (ix *Index) claimLocked(r *record, before *Workload) []netip.Addr {
	restated := !r.told.Since.Equal(before.Since) || r.told.HostNetwork != before.HostNetwork
	if restated || !slices.Equal(r.told.Addrs, before.Addrs) {
		r.spent = false
	}
	var touched []netip.Addr
	for _, a := range r.claimed() {
		if r.told.HostNetwork || restated || !slices.Contains(r.told.Addrs, a) {
			ix.unclaimLocked(r, a)
			touched = append(touched, a)
		}
	}
	if r.told.HostNetwork {
		return touched // its addresses are the node's
	}
	since := r.told.Since
	if since.IsZero() {
		since = ix.now()
	}
	for _, a := range r.told.Addrs {
		if r.claim(a) != nil {
			continue
		}
		r.claims = append(r.claims, held{addr: a, since: since})
		ix.contestLocked(r, a)
		ix.claims[a] = append(ix.claims[a], r)
		touched = append(touched, a)
	}
	return touched
}

// contestLocked marks as lost what r's new claim to an address ends, and the claim itself where
// somebody at least as strong is known to have had the address since later.
func (ix *Index) contestLocked(r *record, a netip.Addr) {
	mine := r.claim(a)
	for _, o := range ix.claims[a] {
		theirs := o.claim(a)
		switch {
		case o.told.Source >= r.told.Source && theirs.since.After(mine.since):
			mine.lost = true
		case o.told.Source <= r.told.Source && !theirs.since.After(mine.since):
			theirs.lost = true
		}
	}
	for _, t := range ix.past.of(a) {
		if t.source >= r.told.Source && t.from.After(mine.since) {
			mine.lost = true
		}
	}
}

func (ix *Index) unclaimLocked(r *record, a netip.Addr) {
	r.claims = slices.DeleteFunc(r.claims, func(h held) bool { return h.addr == a })
	rest := slices.DeleteFunc(ix.claims[a], func(o *record) bool { return o == r })
	if len(rest) == 0 {
		delete(ix.claims, a)
	} else {
		ix.claims[a] = rest
	}
}

// ownerLocked is the record that owns an address: strongest source, then latest.
func (ix *Index) ownerLocked(a netip.Addr) *record {
	var best *record
	for _, r := range ix.claims[a] {
		if r.spent || r.hidden || r.claim(a).lost {
			continue
		}
		if best == nil || stronger(r, best, a) {
			best = r
		}
	}
	return best
}

func stronger(r, o *record, a netip.Addr) bool {
	if r.told.Source != o.told.Source {
		return r.told.Source > o.told.Source
	}
	if s, t := r.claim(a).since, o.claim(a).since; !s.Equal(t) {
		return s.After(t)
	}
	return r.sequence > o.sequence
}

// settleLocked decides the owner of each address anew, keeps who had it before, and publishes the
// workloads whose addresses changed.
func (ix *Index) settleLocked(addrs []netip.Addr) {
	slices.SortFunc(addrs, netip.Addr.Compare)
	stale := map[*record]bool{}
	for _, a := range slices.Compact(addrs) {
		old, had := ix.owners[a]
		owner := ix.ownerLocked(a)
		if had && owner == old.record {
			continue
		}
		if had {
			old.until = ix.now()
			if owner != nil {
				if since := owner.claim(a).since; since.Before(old.until) && since.After(old.from) {
					old.until = since
				}
			}
			ix.past.add(a, old)
			delete(ix.owners, a)
			stale[old.record] = true
		}
		if owner != nil {
			ix.owners[a] = tenure{record: owner, source: owner.told.Source, from: owner.claim(a).since, workload: owner.published}
			stale[owner] = true
		}
	}
	for r := range stale {
		ix.publishLocked(r)
	}
}

// mergeLocked works out who describes whom among the records of one namespace/name, publishes them,
// and returns addresses whose owner may have changed by it.
func (ix *Index) mergeLocked(name spaceName) []netip.Addr {
	group := ix.groups[name]
	slices.SortFunc(group, func(a, b *record) int {
		if a.told.Source != b.told.Source {
			return int(b.told.Source) - int(a.told.Source)
		}
		return strings.Compare(a.told.ID, b.told.ID)
	})
	var touched []netip.Addr
	for i, r := range group {
		was := r.hidden
		r.hidden = describes(r) && slices.ContainsFunc(group[:i], func(o *record) bool {
			return o.told.Source > r.told.Source && ix.samePod(o, r)
		})
		r.spent = r.spent || r.hidden
		if r.hidden != was {
			touched = append(touched, r.claimed()...)
		}
	}
	for _, r := range group {
		ix.publishLocked(r)
	}
	return touched
}

// describes says whether a source speaks of pods by name, rather than of namespaces that exist.
func describes(r *record) bool {
	return r.told.Source == SourceInventory || r.told.Source == SourceKube
}

func (ix *Index) samePod(a, b *record) bool {
	x, y := ix.nodeOf(a), ix.nodeOf(b)
	return x == "" || y == "" || x == y
}

func (ix *Index) nodeOf(r *record) string {
	if r.told.Node == "" && r.told.Local {
		return ix.node
	}
	return r.told.Node
}

// publishLocked makes the workload that views hold: what was told, completed by the weaker sources
// that describe the same pod, with the addresses that it owns.
func (ix *Index) publishLocked(r *record) {
	w := *r.told
	named := w.Service != (Service{})
	for _, d := range ix.groups[spaceName{w.Namespace, w.Name}] {
		if d == r || !describes(d) || d.told.Source >= r.told.Source || !ix.samePod(r, d) {
			continue
		}
		if len(w.Labels) == 0 && len(d.told.Labels) > 0 {
			w.Labels = d.told.Labels
			if d.told.Service != (Service{}) {
				w.Service, named = d.told.Service, true
			}
		}
		if len(w.NamespaceLabels) == 0 {
			w.NamespaceLabels = d.told.NamespaceLabels
		}
		if len(w.Ports) == 0 {
			w.Ports = d.told.Ports
		}
		if w.Node == "" {
			w.Node = d.told.Node
		}
	}
	if !named {
		w.Service = ServiceOf(w.Namespace, w.Name, w.Labels, nil)
	}
	w.NamespaceLabels = ix.namespaceLabels(w.Namespace, w.NamespaceLabels)
	if !w.HostNetwork {
		w.Addrs = nil
		for _, a := range r.told.Addrs {
			if ix.owners[a].record == r {
				w.Addrs = append(w.Addrs, a)
			}
		}
	}
	ix.pending.touch(w.ID)
	switch {
	case r.published != nil && w.same(r.published):
	case w.same(r.told):
		r.published = r.told
	default:
		published := w // w itself need not outlive this
		r.published = &published
	}
	for _, a := range r.published.Addrs {
		if t, ok := ix.owners[a]; ok && t.record == r {
			t.workload = r.published
			ix.owners[a] = t
		}
	}
}

// namespaceLabels: what SetNamespaceLabels said comes first; kubernetes.io/metadata.name cannot be
// anything but the name (Kubernetes sets it itself).
func (ix *Index) namespaceLabels(space string, own Labels) Labels {
	l, known := ix.spaces[space]
	if !known {
		l = own
	}
	if l[metadataName] != space {
		l = maps.Clone(l)
		if l == nil {
			l = Labels{}
		}
		l[metadataName] = space
	}
	return ix.interned.labelsOf(l)
}

// metadataName is the label that Kubernetes gives every namespace.
const metadataName = "kubernetes.io/metadata.name"
