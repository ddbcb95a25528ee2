package simulate

import (
	"fmt"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// uses counts how often each rule of a set decided.
type uses struct {
	all []*Use
	by  map[string]*Use // by the rule's name
}

func usesOf(set *policy.Set) uses {
	u := uses{by: map[string]*Use{}}
	for _, p := range set.Policies() {
		for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
			for i, r := range p.Rules(d) {
				use := &Use{Policy: p.Key(), Rule: RuleName(p, d, i), Source: p.Source, Action: r.Action}
				u.all = append(u.all, use)
				u.by[use.Rule] = use
			}
		}
	}
	return u
}

// RuleName is what decisions call a rule: "shop/cart ingress[0]".
func RuleName(p *policy.Policy, d policy.Direction, i int) string {
	return fmt.Sprintf("%s %s[%d]", p, d, i)
}

func (u uses) list() []Use {
	out := make([]Use, len(u.all))
	for i, x := range u.all {
		out[i] = *x
	}
	return out
}
