package firewall

import (
	"reflect"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// bridge are the rulesets on the way where a side changes both what it allows and what it denies.
// Taken at once, what is denied before and after, but by another of the two, would pass in between: a
// new block comes before the hole in it. So all that is denied before or after is denied first, then
// what is allowed changes, and what is denied no more is let go at the end.
func (ns *Namespace) bridge(want *Ruleset) []*Ruleset {
	if ns.have == nil || ns.unsure {
		return nil
	}
	have, spec := ns.have.spec, want.spec
	if have.Mode != policy.Enforce || spec.Mode != policy.Enforce || !reflect.DeepEqual(have.Interfaces, spec.Interfaces) {
		return nil
	}
	needed := false
	join := func(a, b *policy.Side) {
		if !a.Judged() || !b.Judged() || slices.Equal(a.Denied, b.Denied) {
			return
		}
		needed = needed || a.Isolated != b.Isolated || !slices.Equal(a.Entries, b.Entries)
		denied := slices.Concat(a.Denied, b.Denied)
		a.Denied, b.Denied = denied, denied
	}
	join(&have.Sides.Egress, &spec.Sides.Egress)
	join(&have.Sides.Ingress, &spec.Sides.Ingress)
	if !needed {
		return nil
	}
	return []*Ruleset{Compile(have), Compile(spec)}
}
