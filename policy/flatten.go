package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// element is one entry for the kernel: what a block allows, without the holes in it.
type element struct {
	Entry
	holes []netip.Prefix
}

// flattening turns pieces, of which the first that matches decides, into what the kernel holds: entries
// that allow, and entries that deny, which win.
//
// Blocks lie in one another or apart, never across, so in sorted order each block comes after those
// around it, and says only in what it differs from the innermost of them. What a block allows and its
// surroundings do not, it adds. What it denies and its surroundings allow, it denies, if nothing inside
// of it is allowed again; else its surroundings get a hole there. So there is never a denied block with
// an allowed one inside, and a workload among a denied block costs one element. The number of elements
// grows with what rules write, whatever the nesting.
type flattening struct {
	open    bool
	base    [2]*element // of an open side, by family: everything
	allowed []*element
	denied  []Entry
	shut    []*element // denied to names, with holes where it is not
	names   []namePiece
	places  []standing // where names stand
	scratch [2][]cell
	blocks  map[netip.Prefix]*block
}

// RuleOpen is the rule of an entry that allows what no policy has anything against, where the side is
// written as one that lists what it allows.
const RuleOpen = "not isolated"

// block is a block around those that come.
type block struct {
	prefix netip.Prefix
	cells  []cell

	denies  bool         // it is written down in one way or another, depending on whether anything inside is allowed
	witness netip.Prefix // one that is, if any is
}

func flatten(raw []piece, names []namePiece, isolated bool) (*flattening, Side) {
	f := &flattening{open: !isolated, names: names, blocks: map[netip.Prefix]*block{}}
	for i, p := range identity.Everything {
		f.base[i] = &element{Entry: Entry{Peer: p, Rule: RuleOpen}}
	}
	slices.SortFunc(raw, comparePieces)
	inner := allowsInside(raw)
	f.aliveNames(raw)
	var stack []*block
	for i := 0; i < len(raw); {
		j := i
		for j < len(raw) && raw[j].peer == raw[i].peer {
			j++
		}
		p := raw[i].peer
		for len(stack) > 0 && !stack[len(stack)-1].prefix.Overlaps(p) {
			stack = stack[:len(stack)-1]
		}
		around := whole(f.open, f.base[familyOfAddr(p.Addr())])
		if len(stack) > 0 {
			around = stack[len(stack)-1].cells
		}
		if p.IsSingleIP() {
			f.single(p, raw[i:j], around)
		} else {
			x := &block{prefix: p, witness: inner[p]}
			f.block(x, raw[i:j], around)
			stack = append(stack, x)
			f.blocks[p] = x
		}
		i = j
	}
	return f, f.side(isolated)
}

func familyOfAddr(a netip.Addr) int {
	if a.Is4() == identity.Everything[0].Addr().Is4() {
		return 0
	}
	return 1
}

func comparePieces(a, b piece) int {
	return cmp.Or(identity.ComparePrefixes(a.peer, b.peer), int(a.protocol)-int(b.protocol), int(a.low)-int(b.low), int(b.high)-int(a.high), cmp.Compare(a.rank, b.rank))
}

// allowsInside tells of each block in which a piece for a block or address inside of it could allow
// anything again where that is, rather a block.
func allowsInside(raw []piece) map[netip.Prefix]netip.Prefix {
	out := map[netip.Prefix]netip.Prefix{}
	var stack []netip.Prefix
	for i := range raw {
		p := raw[i].peer
		for len(stack) > 0 && !stack[len(stack)-1].Overlaps(p) {
			stack = stack[:len(stack)-1]
		}
		if raw[i].action != ActionDeny {
			for k := len(stack) - 1; k >= 0; k-- {
				w, known := out[stack[k]]
				if known && (!w.IsSingleIP() || p.IsSingleIP()) {
					break // and so those around it have one
				}
				if stack[k] != p {
					out[stack[k]] = p
				}
			}
		}
		if !p.IsSingleIP() && (len(stack) == 0 || stack[len(stack)-1] != p) {
			stack = append(stack, p)
		}
	}
	return out
}

// block brings the cells around a block to what holds in it.
func (f *flattening) block(x *block, own []piece, around []cell) {
	p := x.prefix
	cells := refine(around, cutsOf(own), make([]cell, 0, len(around)+2*len(own)))
	for i := range own {
		apply(cells, &own[i])
	}
	f.reopen(p, cells)
	named := f.nameAgain(cells)
	x.denies = !named && slices.ContainsFunc(cells, f.toDeny)
	if named || x.witness.IsValid() {
		punch(p, cells)
		f.shutNames(p, cells)
	} else {
		f.deny(p, cells)
	}
	f.allow(p, cells)
	x.cells = cells
}

// punch makes holes in what covers cells that are denied.
func punch(p netip.Prefix, cells []cell) {
	for i := range cells {
		e := cells[i].covered
		if cells[i].allowed() || e == nil || cells[i].denied {
			continue
		}
		e.holes = append(e.holes, p)
		for k := range cells {
			if cells[k].covered == e {
				cells[k].covered = nil
			}
		}
	}
}

// single says how one address differs from the block around it. Most sides are mostly these.
func (f *flattening) single(p netip.Prefix, own []piece, around []cell) {
	some := f.scratch[0][:0]
	if len(f.names) > 0 {
		some = append(some, around...) // holes are made for all of them
	} else {
		some = touched(around, own, some)
	}
	cells := refine(some, cutsOf(own), f.scratch[1][:0])
	f.scratch = [2][]cell{some, cells}
	for i := range own {
		apply(cells, &own[i])
	}
	f.reopen(p, cells)
	if f.nameAgain(cells) {
		punch(p, cells)
	}
	last := &cells[len(cells)-1]
	if everything := own[0].protocol == identity.AnyProtocol; everything && !f.namesOpen(cells) {
		uncovered := slices.ContainsFunc(cells, func(c cell) bool { return c.allowed() && c.covered == nil })
		if last.allowed() && uncovered {
			// One element for the address, less those for what is denied: hashes, not ranges.
			e := &element{Entry: Entry{Peer: p, Rule: last.rule()}}
			f.allowed = append(f.allowed, e)
			for i := range cells {
				cells[i].covered = e
			}
		}
		if !slices.ContainsFunc(cells, func(c cell) bool { return c.allowed() }) && slices.ContainsFunc(cells, f.toDeny) {
			f.denied = append(f.denied, Entry{Peer: p, Rule: last.rule()})
			return
		}
	}
	f.deny(p, cells)
	f.allow(p, cells)
}

// toDeny says whether the kernel would let a cell through that must not.
func (f *flattening) toDeny(c cell) bool {
	return !c.allowed() && !c.denied && c.shut == nil && (c.covered != nil || f.nameable(&c))
}

// deny writes down what is denied although the surroundings are allowed.
func (f *flattening) deny(p netip.Prefix, cells []cell) {
	runs(p, cells, f.toDeny, func(e Entry, part []cell) {
		f.denied = append(f.denied, e)
		for i := range part {
			part[i].denied = true
		}
	})
}

// allow writes down what is allowed although the surroundings are not.
func (f *flattening) allow(p netip.Prefix, cells []cell) {
	runs(p, cells, func(c cell) bool { return c.allowed() && c.covered == nil }, func(e Entry, part []cell) {
		x := &element{Entry: e}
		f.allowed = append(f.allowed, x)
		for i := range part {
			part[i].covered = x
		}
	})
}

// runs gives entries for the cells that are meant, neighbours of the same rule as one. Single ports of a
// single address stay: each fits in a hash set, which is cheaper than a range.
func runs(p netip.Prefix, cells []cell, meant func(cell) bool, emit func(Entry, []cell)) {
	for i := 0; i < len(cells); {
		if !meant(cells[i]) {
			i++
			continue
		}
		run := cells[i]
		rule := run.rule()
		j := i + 1
		for ; j < len(cells) && meant(cells[j]) && run.follows(&cells[j]) && cells[j].rule() == rule; j++ {
			if p.IsSingleIP() && run.low == run.high && cells[j].low == cells[j].high && identity.Protocol(run.from).HasPorts() {
				break
			}
			run.to, run.high = cells[j].to, cells[j].high
		}
		if e, ok := run.entry(); ok {
			e.Peer, e.Rule = p, rule
			emit(e, cells[i:j])
		}
		i = j
	}
}

// side puts it together. An open side with a hole in it is one that lists what it allows.
func (f *flattening) side(isolated bool) Side {
	out := Side{Isolated: isolated, Denied: f.denied, Names: nameEntries(f.names)}
	if f.open && (len(f.base[0].holes) > 0 || len(f.base[1].holes) > 0) {
		out.Isolated = true
		f.allowed = append(f.allowed, f.base[0], f.base[1])
	}
	for _, e := range f.allowed {
		if len(e.holes) == 0 {
			out.Entries = append(out.Entries, e.Entry)
			continue
		}
		for _, part := range identity.Subtract(e.Peer, identity.Union(e.holes)) {
			x := e.Entry
			x.Peer = part
			out.Entries = append(out.Entries, x)
		}
	}
	for _, e := range f.shut {
		for _, part := range identity.Subtract(e.Peer, identity.Union(e.holes)) {
			x := e.Entry
			x.Peer = part
			out.Denied = append(out.Denied, x)
		}
	}
	if !out.Isolated {
		// What is open needs no list.
		out.Entries, out.Names = nil, nil
	}
	slices.SortFunc(out.Entries, compareEntries)
	slices.SortFunc(out.Denied, compareEntries)
	return out
}

// SortEntries puts a side's entries in their order.
func SortEntries(list []Entry) { slices.SortFunc(list, compareEntries) }

// compareEntries orders by peer (a block before what lies in it), protocol, ports, rule.
func compareEntries(a, b Entry) int {
	return cmp.Or(identity.ComparePrefixes(a.Peer, b.Peer), int(a.Protocol)-int(b.Protocol), int(a.EndProtocol)-int(b.EndProtocol),
		int(a.Port)-int(b.Port), int(b.EndPort)-int(a.EndPort), strings.Compare(a.Rule, b.Rule))
}
