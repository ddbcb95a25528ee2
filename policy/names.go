package policy

import (
	"cmp"
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
	f.names = slices.DeleteFunc(f.names, func(n namePiece) bool {
		if n.action != ActionAllow {
			return true
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
	for i, n := range f.names {
		if i == 0 || f.nameMax.before(n.standing) {
			f.nameMax = n.standing
		}
	}
}

// standingOf is the place of what decides a cell; false: the default does.
func (c *cell) standingOf() (standing, bool) {
	s := c.deciding()
	return standing{rank: s.rank, admin: s == &c.admin}, s.rank < rankLast
}

// nameable says whether a denied cell would be let through by a name that is asked later than the rule
// that denies it.
func (f *flattening) nameable(c *cell) bool {
	at, written := c.standingOf()
	return len(f.names) > 0 && written && at.before(f.nameMax)
}

// nameAgain says whether all that is newly denied here is denied by rules that come after all names: then
// an address in the block may be allowed again by its name.
func (f *flattening) nameAgain(cells []cell) bool {
	if len(f.names) == 0 {
		return false
	}
	return !slices.ContainsFunc(cells, func(c cell) bool { return !c.allowed() && f.nameable(&c) })
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
