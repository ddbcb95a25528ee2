package firewall

import (
	"fmt"
	"slices"
	"strings"
)

// Drift says that what is in force is not what was applied: somebody else changed it.
type Drift struct {
	Where string   // path of the workload's namespace
	What  []string // each difference, as the change that repairs it
}

func (d *Drift) Error() string {
	list := d.What
	more := ""
	if len(list) > 5 {
		more = fmt.Sprintf(", and %d more", len(list)-5)
		list = list[:5]
	}
	return fmt.Sprintf("network namespace %s: the rules are not as they were written; to repair: %s%s; apply them again",
		d.Where, strings.Join(list, ", "), more)
}

// Check compares what is in force with what was last applied, or with nothing before the first
// Apply: owner and flags of the tables, chains and their rules, sets and their elements. A difference
// is a [*Drift]; the next Apply repairs it.
func (ns *Namespace) Check() error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if err := ns.ready(); err != nil {
		return err
	}
	if ns.applied == nil {
		return nil
	}
	have := &Ruleset{}
	var what []string
	applied := ns.placed(ns.applied)
	for name := range ns.beside {
		for _, t := range ns.applied.Tables {
			if port, err := ns.in.ownerOf(t); t.Name == name && t.Place == InWorkload && err == nil && (port == 0 || port == ns.in.port) {
				what = append(what, fmt.Sprintf("table %s %s is free again: use it", t.Family, t.Name))
			}
		}
	}
	for _, t := range applied.Tables {
		s := ns.socket(t.Place)
		st, err := s.readTable(t)
		if err != nil {
			return fmt.Errorf("check rules: %w", err)
		}
		if st == nil {
			continue
		}
		if ns.features.tableFlags&tableOwner != 0 && st.owner != s.port {
			what = append(what, fmt.Sprintf("table %s %s: take ownership back", t.Family, t.Name))
		}
		have.Tables = append(have.Tables, st.checked(ns.features.tableFlags))
	}
	for _, c := range Diff(have, applied) {
		if !slices.Contains([]Op{FlushSet, FlushChain}, c.Op) || c.Op == FlushChain && len(c.Chain.Rules) == 0 {
			what = append(what, c.String())
		}
	}
	if len(what) == 0 {
		return nil
	}
	ns.unsure = true
	return &Drift{Where: ns.path, What: what}
}
