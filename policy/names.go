package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// DNS names have no addresses when a side is compiled: the kernel's set of them is filled as answers
// come. It allows what Denied does not deny. So what a rule denies that comes before a name is denied
// for it too, and what one denies that comes after is not written as denied, but as not allowed.

// before says whether one is asked before the other.
func (s standing) before(o standing) bool {
	if s.admin != o.admin {
		return s.admin
	}
	return s.rank < o.rank
}

// aliveNames leaves out names that can never decide: a piece about everything comes before.
func (f *flattening) aliveNames(raw []piece) {
	passes := slices.ContainsFunc(raw, func(p piece) bool { return p.action == ActionPass })
	f.names = slices.DeleteFunc(f.names, func(n namePiece) bool {
		if n.action != ActionAllow {
			return true
		}
		if passes {
			return false // what everything else is denied may be passed on
		}
		dead := 0
		for _, everything := range identity.Everything {
			if slices.ContainsFunc(raw, func(p piece) bool {
				return p.peer == everything && p.action == ActionDeny && p.before(n.standing) &&
					(p.protocol == identity.AnyProtocol || p.protocol == n.Protocol && p.low <= n.Port && n.EndPort <= p.high)
			}) {
				dead++
			}
		}
		return dead == len(identity.Everything)
	})
	for _, n := range f.names {
		if !slices.Contains(f.places, n.standing.place()) {
			f.places = append(f.places, n.standing.place())
		}
	}
}

// place is a standing without what it does.
func (s standing) place() standing { return standing{rank: s.rank, admin: s.admin} }

// nameable says whether the kernel would let a denied cell through by a name that the evaluator does not
// come to there, or only after what denies it. Where one name of several is such, it holds for all: names
// share a set, and rather too much is denied.
func (f *flattening) nameable(c *cell) bool {
	for _, n := range f.places {
		switch {
		case n.admin && c.admin.rank < n.rank: // denied, or passed on
			return true
		case !n.admin && (c.deciding() == &c.admin || c.rest.rank < n.rank):
			return true
		}
	}
	return false
}

// nameAgain says whether anything that is newly denied here is denied by a rule that comes after all
// names: then an address in the block may be allowed again by its name, and Denied must not have it.
func (f *flattening) nameAgain(cells []cell) bool {
	return len(f.names) > 0 && slices.ContainsFunc(cells, func(c cell) bool { return f.toDeny(c) && !f.nameable(&c) })
}

// namesOpen says whether anything denied here may be allowed again by its name.
func (f *flattening) namesOpen(cells []cell) bool {
	return len(f.names) > 0 && slices.ContainsFunc(cells, func(c cell) bool { return !c.allowed() && !f.nameable(&c) })
}

// shutNames denies to names what rules before them deny, where the surroundings do not allow it and
// something inside may be allowed again: that makes a hole.
func (f *flattening) shutNames(p netip.Prefix, cells []cell) {
	runs(p, cells, f.toDeny, func(e Entry, part []cell) {
		x := &element{Entry: e}
		f.shut = append(f.shut, x)
		for i := range part {
			part[i].shut = x
		}
	})
}

// reopen makes holes in what is shut to names around a block that differs.
func (f *flattening) reopen(p netip.Prefix, cells []cell) {
	for i := range cells {
		e := cells[i].shut
		if e == nil || !cells[i].allowed() && f.nameable(&cells[i]) {
			continue
		}
		e.holes = append(e.holes, p)
		for k := range cells {
			if cells[k].shut == e {
				cells[k].shut = nil
			}
		}
	}
}

func nameEntries(names []namePiece) []NameEntry {
	out := make([]NameEntry, 0, len(names))
	for _, n := range names {
		out = append(out, n.NameEntry)
	}
	slices.SortFunc(out, func(a, b NameEntry) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), int(a.Protocol)-int(b.Protocol), int(a.Port)-int(b.Port), int(a.EndPort)-int(b.EndPort), strings.Compare(a.Rule, b.Rule))
	})
	return slices.CompactFunc(out, func(a, b NameEntry) bool {
		a.Rule = b.Rule
		return a == b
	})
}
