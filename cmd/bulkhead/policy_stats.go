package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/lint"
)

// printStats is a row for each rule of policies in force: what it was used for on the daemon's node,
// and when last.
func (a *app) printStats(all []api.Policy) error {
	var rows [][]string
	row := func(p api.Policy, rule, action string, h api.Hits) {
		last := "never in " + age(p.Stats.Since)
		if h.Last != nil {
			last = age(*h.Last) + " ago"
		}
		rows = append(rows, []string{nameOf(p), rule, action, strconv.FormatUint(h.Allowed, 10), strconv.FormatUint(h.Denied, 10),
			strconv.FormatUint(h.WouldDeny, 10), last})
	}
	for _, p := range all {
		if p.Stats == nil {
			continue
		}
		for _, r := range p.Stats.Rules {
			row(p, ruleTitle(r), r.Action, r.Hits)
		}
		if len(p.Types) > 0 {
			row(p, "the rest", "deny", p.Stats.Rest)
		}
	}
	return a.table("POLICY RULE ACTION ALLOWED DENIED WOULD-DENY LAST-USED", rows)
}

func ruleTitle(r api.RuleStats) string {
	title := fmt.Sprintf("%s[%d]", r.Direction, r.Index)
	if r.Name != "" {
		title += " " + strconv.Quote(r.Name)
	}
	return title
}

// usedRules tells when rules were last used, for the check of idle rules.
func usedRules(all []api.Policy) func(*policy.Policy, policy.Direction, int) lint.Use {
	of := map[policy.Key]api.Policy{}
	for _, p := range all {
		if p.Stats != nil {
			of[policy.Key{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name}] = p
		}
	}
	return func(p *policy.Policy, d policy.Direction, i int) lint.Use {
		held, known := of[p.Key()]
		if !known || strings.TrimSpace(held.YAML) != strings.TrimSpace(p.Text) {
			return lint.Use{} // not in force, or with another text: nobody counted
		}
		for _, r := range held.Stats.Rules {
			if r.Direction != d.String() || r.Index != i {
				continue
			}
			use := lint.Use{Counted: held.Stats.Since}
			if r.Last != nil {
				use.Last = *r.Last
			}
			return use
		}
		return lint.Use{}
	}
}

// inForce reads the policies in force from what the daemon tells of them.
func inForce(all []api.Policy) (*policy.Set, error) {
	var list []policy.Policy
	for _, p := range all {
		if p.Mode == policy.ModeShadow {
			continue
		}
		read, err := policy.Parse(p.Kind+"/"+nameOf(p), []byte(p.YAML))
		if err != nil {
			return nil, err
		}
		list = append(list, read...)
	}
	return policy.NewSet(list...)
}
