package policy

import (
	"net/netip"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// Compiler compiles one workload again and again, as the cluster changes. It gives what [Set.Entries]
// gives, and does only the work that a change calls for: where a peer comes, goes or changes, the
// addresses concerned are looked at and all else stays. It is not safe for concurrent use; the zero
// value is ready.
type Compiler struct {
	set     *Set
	view    *identity.View
	subject *identity.Workload
	sides   [2]*compiledSide // egress, ingress
}

// compiledSide is a side with what is needed to change it in place of making it anew.
type compiledSide struct {
	Side
	lineup lineup
	flat   *flattening
	blocks *lookup // without pieces of single addresses
}

// compileSide makes a side from nothing.
func compileSide(v *identity.View, w *identity.Workload, l *lineup) *compiledSide {
	if l.silent {
		return &compiledSide{lineup: *l}
	}
	b := &builder{view: v, subject: w, dir: l.dir}
	b.gather(l)
	have := newLookup(b.raw, !l.isolated())
	if l.dir == Egress && len(v.VIPKeys()) > 0 {
		b.virtual(have)
	}
	out := &compiledSide{lineup: *l, blocks: have}
	out.flat, out.Side = flatten(b.raw, b.names, l.isolated())
	out.OnDeny = l.onDeny()
	out.flat.allowed, out.flat.denied = nil, nil
	have.singles = nil
	return out
}

// Sides is what the workload's namespace must hold now, and whether that is not what was given before.
// Neither that nor this is ever written to.
func (c *Compiler) Sides(s *Set, v *identity.View, w *identity.Workload) (sides Sides, changed bool) {
	d := identity.Delta{Whole: true}
	if c.view != nil && c.subject == w {
		d = v.Since(c.view.Generation)
	}
	for i, dir := range []Direction{Egress, Ingress} {
		changed = c.side(i, dir, s, v, w, d) || changed
	}
	c.set, c.view, c.subject = s, v, w
	return Sides{Egress: c.sides[0].Side, Ingress: c.sides[1].Side}, changed
}

// Skip tells of a view that differs from the last one in nothing that concerns the workload (see
// [Set.Affected]).
func (c *Compiler) Skip(v *identity.View) { c.view = v }

func (c *Compiler) side(i int, dir Direction, s *Set, v *identity.View, w *identity.Workload, d identity.Delta) bool {
	old := c.sides[i]
	l := lineup{dir: dir, silent: true}
	switch {
	case w == nil || w.HostNetwork:
	case s == c.set && w == c.subject:
		l = old.lineup
	default:
		l = s.lineup(w, dir)
	}
	if old != nil && !d.Whole && l.same(&old.lineup) {
		next, ok := old.follow(&identityChange{before: c.view, now: v, subject: w, Delta: d})
		if ok {
			c.sides[i] = next
			return next != old
		}
	}
	c.sides[i] = compileSide(v, w, &l)
	return old == nil || !old.Side.Equal(c.sides[i].Side)
}

// same says whether the same rules have a say in the same order.
func (l *lineup) same(o *lineup) bool {
	return slices.Equal(l.isolators, o.isolators) && slices.Equal(l.admin, o.admin) && slices.Equal(l.spaces, o.spaces) &&
		slices.Equal(l.baseline, o.baseline)
}

// identityChange is what a side must follow.
type identityChange struct {
	before, now *identity.View
	subject     *identity.Workload
	identity.Delta
}

// follow gives the side after a change, itself where nothing is different; false: it must be made anew.
func (s *compiledSide) follow(c *identityChange) (*compiledSide, bool) {
	if s.lineup.silent || len(c.Changes) == 0 && len(c.VIPs) == 0 {
		return s, true
	}
	if len(s.flat.names) > 0 {
		return nil, false // one address may make holes in what is denied to names around it
	}
	addrs := s.addresses(c)
	if len(addrs) > 64 && len(addrs) > len(s.Entries)/4 {
		return nil, false
	}
	p := patcher{side: s, change: c, known: map[netip.Addr][]piece{}}
	p.have = &lookup{singles: p.singles, blocks: s.blocks.blocks, bits: s.blocks.bits, open: s.blocks.open}
	entries, denied := patch{}, patch{}
	for _, a := range addrs {
		allow, deny, ok := p.single(a)
		if !ok {
			return nil, false
		}
		entries.add(s.Entries, a, allow)
		denied.add(s.Denied, a, deny)
	}
	if len(entries.at) == 0 && len(denied.at) == 0 {
		return s, true
	}
	out := *s
	out.Entries, out.Denied = entries.apply(s.Entries), denied.apply(s.Denied)
	return &out, true
}

// addresses lists those of which pieces may differ: of the workloads that changed, and of Services that
// these are behind. Sorted.
func (s *compiledSide) addresses(c *identityChange) []netip.Addr {
	var out []netip.Addr
	for _, x := range c.Changes {
		for _, w := range []*identity.Workload{x.Before, x.After} {
			if w != nil && !w.HostNetwork {
				out = append(out, w.Addrs...)
			}
		}
	}
	if s.lineup.dir == Egress {
		note := func(key identity.VIPKey) { out = append(out, key.Addr) }
		for _, a := range out {
			c.before.Fronts(identity.Single(a), note)
			c.now.Fronts(identity.Single(a), note)
		}
		for _, key := range c.VIPs {
			note(key)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// patcher works out single addresses of a side.
type patcher struct {
	side   *compiledSide
	change *identityChange
	have   *lookup
	known  map[netip.Addr][]piece
}

// singles gives the pieces of one address, those of Service ports aside.
func (p *patcher) singles(a netip.Addr) []piece {
	if have, known := p.known[a]; known {
		return have
	}
	b := builder{view: p.change.now, subject: p.change.subject, dir: p.side.lineup.dir, only: a}
	b.gather(&p.side.lineup)
	p.known[a] = b.raw
	return b.raw
}

// single gives what the kernel must hold for one address now; false: blocks around it would have to be
// written in another way, too.
func (p *patcher) single(a netip.Addr) (allowed, denied []Entry, ok bool) {
	raw := slices.Clone(p.singles(a))
	if p.side.lineup.dir == Egress {
		b := builder{view: p.change.now, subject: p.change.subject, dir: Egress, raw: raw}
		for _, key := range p.change.now.PortsOf(a) {
			if b.concerns(p.have, key) {
				b.port(p.have, key)
			}
		}
		raw = b.raw
	}
	slices.SortFunc(raw, comparePieces)
	f := p.side.flat
	again := slices.ContainsFunc(raw, func(p piece) bool { return p.action != ActionDeny })
	around := whole(f.open, f.base[familyOfAddr(a)])
	for _, bits := range p.have.bits { // the widest first
		prefix, err := a.Prefix(bits)
		if err != nil {
			break
		}
		x := f.blocks[prefix]
		if x == nil {
			continue
		}
		if x.denies && (again && !x.witness.IsValid() || !again && x.witness == identity.Single(a)) {
			return nil, nil, false
		}
		around = x.cells
	}
	if len(raw) == 0 {
		return nil, nil, true
	}
	one := flattening{open: f.open, base: f.base}
	one.single(identity.Single(a), raw, around)
	if p.side.Isolated { // what is open needs no list
		for _, e := range one.allowed {
			allowed = append(allowed, e.Entry)
		}
		slices.SortFunc(allowed, compareEntries)
	}
	slices.SortFunc(one.denied, compareEntries)
	return allowed, one.denied, true
}

// patch is what takes the place of the entries of some addresses.
type patch struct {
	at  []netip.Addr // sorted
	put [][]Entry
}

// add notes what an address must have now, where that is not what the list has.
func (p *patch) add(list []Entry, a netip.Addr, now []Entry) {
	if !slices.Equal(entriesOf(list, a), now) {
		p.at, p.put = append(p.at, a), append(p.put, now)
	}
}

// entriesOf is the part of a sorted list that is about exactly one address.
func entriesOf(list []Entry, a netip.Addr) []Entry {
	from, to := rangeOf(list, a)
	return list[from:to]
}

func rangeOf(list []Entry, a netip.Addr) (from, to int) {
	p := identity.Single(a)
	from, _ = slices.BinarySearchFunc(list, p, func(e Entry, p netip.Prefix) int { return identity.ComparePrefixes(e.Peer, p) })
	for to = from; to < len(list) && list[to].Peer == p; to++ {
	}
	return from, to
}

// apply makes another list.
func (p *patch) apply(list []Entry) []Entry {
	if len(p.at) == 0 {
		return list
	}
	more := 0
	for _, put := range p.put {
		more += len(put)
	}
	out := make([]Entry, 0, len(list)+more)
	for i, a := range p.at {
		from, to := rangeOf(list, a)
		out = append(append(out, list[:from]...), p.put[i]...)
		list = list[to:]
	}
	if out = append(out, list...); len(out) == 0 {
		return nil
	}
	return out
}
