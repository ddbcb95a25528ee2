package policy

import (
	"github.com/bulkhead-firewall/bulkhead/identity"
)

// lineup is every rule that has a say about one end of a connection, in the order in which they are
// asked; the first that matches decides:
//
//	admin tier      pass leaves the tier
//	namespace tier  by priority; at the same one denying rules before allowing ones
//	                isolated: the built-in dns, then everything else is denied
//	baseline tier   where nobody isolates
//	                else everything is allowed
//
// Before all of them come a workload's traffic with itself, and its own node's.
type lineup struct {
	dir       Direction
	isolators []*compiled // the policies that isolate it
	admin     []*rule
	spaces    []*rule
	baseline  []*rule // empty where isolated
	silent    bool    // nobody has a say: open
}

func (s *Set) lineup(w *identity.Workload, d Direction) lineup {
	l := lineup{dir: d}
	mine := s.selecting(w, d)
	for _, c := range mine {
		if c.half(d).isolates {
			l.isolators = append(l.isolators, c)
		}
	}
	l.admin = rulesOf(s.cluster(AdminTier, w, d), d)
	l.spaces = denyFirst(mine, d)
	if !l.isolated() {
		l.baseline = rulesOf(s.cluster(BaselineTier, w, d), d)
	}
	l.silent = !l.isolated() && len(l.admin)+len(l.spaces)+len(l.baseline) == 0
	return l
}

func (l *lineup) isolated() bool { return len(l.isolators) > 0 }

// rulesOf lists policies' rules in order.
func rulesOf(policies []*compiled, d Direction) []*rule {
	var out []*rule
	for _, c := range policies {
		h := c.half(d)
		for i := range h.rules {
			out = append(out, &h.rules[i])
		}
	}
	return out
}

// denyFirst lists the rules of namespaced policies, which come by priority.
func denyFirst(policies []*compiled, d Direction) []*rule {
	var out []*rule
	for i := 0; i < len(policies); {
		j := i
		for j < len(policies) && policies[j].priority() == policies[i].priority() {
			j++
		}
		level := rulesOf(policies[i:j], d)
		for _, denies := range []bool{true, false} {
			for _, r := range level {
				if (r.action == ActionDeny) == denies {
					out = append(out, r)
				}
			}
		}
		i = j
	}
	return out
}

// Ranks of what is no written rule. Lower is asked first.
const (
	rankVIP  = -2
	rankNode = -1
	rankLast = 1 << 30
)

// rank is a rule's place. The admin tier has places of its own, since a pass leaves it.
func (l *lineup) each(do func(r *rule, admin bool, rank int32)) {
	for i, r := range l.admin {
		do(r, true, int32(i))
	}
	for i, r := range l.spaces {
		do(r, false, int32(i))
	}
	for i, r := range l.baseline {
		do(r, false, int32(len(l.spaces)+i))
	}
}

// dnsRank is the place of the built-in dns: after all that namespaced policies write.
func (l *lineup) dnsRank() int32 { return int32(len(l.spaces)) }
