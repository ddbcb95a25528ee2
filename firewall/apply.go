package firewall

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// applyTries bounds how often a change is worked out anew because the kernel's state was not what we
// thought, or its answer was lost.
const applyTries = 5

// Apply brings the kernel from what is in force to what is wanted and says how many changes that
// took, zero where nothing differs and nothing was written.
//
// Changes of one namespace are one transaction. Where rights shrink, the order is: what may answer is
// remembered; births stop in the namespace; connections that lost their right are cut, while their
// reset can still leave; then their frames stop at the guard. Where the guard gets looser, it goes
// first. Connections that are allowed before and after lose no packet.
//
// After an error, Apply may be called again: it reads what is in force first.
func (ns *Namespace) Apply(want *Ruleset) (int, error) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	total := 0
	for try := 1; ; try++ {
		if err := errors.Join(ns.ready(), ns.interfacesThere(want)); err != nil {
			return total, err
		}
		ns.applied = want
		n, err := ns.applyOnce(want)
		total += n
		if err == nil {
			ns.have, ns.unsure = want, false
			return total, nil
		}
		ns.unsure = true
		if again(err) && try < applyTries || stale(err) && try == 1 {
			continue
		}
		return total, fmt.Errorf("apply rules: %w", explain(err))
	}
}

// explain adds what to do about errors that say little.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w; it needs CAP_NET_ADMIN, and nobody else may own the table", err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w; the kernel must know netdev egress chains (Linux 5.16) and set expressions (5.12)", err)
	}
	return err
}

func (ns *Namespace) applyOnce(want *Ruleset) (int, error) {
	if ns.unsure {
		if err := ns.read(ns.union(want)); err != nil {
			return 0, err
		}
	}
	changes := Diff(ns.have, want)
	revokes := want.spec.Mode == policy.Enforce && (ns.owed || mayRevoke(changes))
	if len(changes) == 0 && !revokes {
		return 0, nil
	}
	ns.owed = ns.owed || revokes
	rules, guards := apart(changes)
	var err error
	switch {
	case loosens(ns.have, want):
		if err = ns.commit(guards); err == nil {
			err = ns.commit(rules)
		}
		if err == nil && revokes {
			err = ns.revoke(want.spec, want.Tables)
		}
	case revokes:
		err = ns.tighten(want, rules, guards)
	default:
		early, late := split(guards)
		for _, step := range [][]Change{early, rules, late} {
			if err == nil {
				err = ns.commit(step)
			}
		}
	}
	if err != nil {
		return 0, err
	}
	ns.owed = false
	return len(changes), nil
}

// tighten lets the guards remember and stops births in the namespace, revokes, and then closes the
// guards, which are told of the connections that were there before them.
func (ns *Namespace) tighten(want *Ruleset, rules, guards []Change) error {
	spec := want.spec
	var early []Change
	if len(ns.have.Tables) > 0 {
		early, guards = split(guards)
	}
	before, after := warming(spec, guards)
	early, guards = append(early, before...), append(guards, after...)
	if err := ns.commit(early); err != nil {
		return err
	}
	seeds, err := ns.seeds(spec, rules)
	if err != nil {
		return err
	}
	// Without a guard the namespace itself stops the resets of what loses its right.
	if !spec.guarded() {
		if _, err := ns.cut(context.Background(), spec); err != nil {
			return err
		}
	}
	if err := ns.commit(append(rules, seeds...)); err != nil {
		return err
	}
	if err := ns.revoke(spec, want.Tables[:1]); err != nil {
		return err
	}
	if seeds, err = ns.seeds(spec, guards); err != nil {
		return err
	}
	if err := ns.commit(append(guards, seeds...)); err != nil {
		return err
	}
	return ns.forget(want.Tables[1:], spec)
}

// revoke ends what lost its right: connections, and the memory of what may be answered.
func (ns *Namespace) revoke(spec Spec, tables []*Table) error {
	if _, err := ns.cut(context.Background(), spec); err != nil {
		return err
	}
	return ns.forget(tables, spec)
}

// apart separates the changes of the namespace's own table from those of the guards.
func apart(changes []Change) (rules, guards []Change) {
	for _, c := range changes {
		if c.Table.Family == FamilyNetdev {
			guards = append(guards, c)
		} else {
			rules = append(rules, c)
		}
	}
	return rules, guards
}

// union is want together with the tables that are in force and no longer wanted.
func (ns *Namespace) union(want *Ruleset) *Ruleset {
	out := &Ruleset{Tables: want.Tables[:len(want.Tables):len(want.Tables)]}
	if ns.have == nil {
		return out
	}
	for _, t := range ns.have.Tables {
		if want.table(t) == nil {
			out.Tables = append(out.Tables, t)
		}
	}
	return out
}

// commit carries out changes, those of one network namespace as one transaction.
func (ns *Namespace) commit(changes []Change) error {
	for _, p := range []Place{AtNode, InWorkload} {
		b := newBatch()
		for _, c := range changes {
			if c.Table.Place == p {
				c.encode(b, ns.features.tableFlags)
			}
		}
		if err := ns.socket(p).commit(b); err != nil {
			return err
		}
	}
	return nil
}

// loosens says whether a guard stops to judge frames: then it goes before the namespace.
func loosens(have, want *Ruleset) bool {
	for _, t := range have.Tables {
		if w := want.table(t); t.chain("raw") != nil && (w == nil || w.chain("raw") == nil) {
			return true
		}
	}
	return false
}

// split takes out of the changes at guards what only adds rights or memory, and can go first. In
// an interval set, elements go and come together.
func split(changes []Change) (early, late []Change) {
	whole := map[*Set]bool{} // must not be split
	made := map[*Table]bool{}
	for _, c := range changes {
		switch c.Op {
		case DeleteElements:
			whole[c.Set] = c.Set.Interval
		case DeleteTable, CreateTable:
			made[c.Table] = true
		}
	}
	for _, c := range changes {
		first := false
		switch c.Op {
		case AddCounter, AddSet:
			first = true
		case AddElements:
			first = !whole[c.Set]
		case AddChain, FlushChain, AddRules:
			first = c.Chain.records
		}
		if first && !made[c.Table] {
			early = append(early, c)
		} else {
			late = append(late, c)
		}
	}
	return early, late
}

// mayRevoke says whether changes can take a right away: anything but new elements.
func mayRevoke(changes []Change) bool {
	for _, c := range changes {
		switch c.Op {
		case AddElements, AddSet, AddCounter:
		case DeleteElements:
			if strings.HasPrefix(c.Name, "egress") || strings.HasPrefix(c.Name, "ingress") {
				return true
			}
		default:
			return true
		}
	}
	return false
}
