package firewall

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
// A table is made in one transaction with its rules. Later changes are up to three, see [phases].
// Where rights shrink, the order is: what may answer is remembered; births stop in the namespace;
// connections that lost their right are cut, while their reset can still leave; then their frames
// stop at the guard. Where the guard gets looser, it goes first. Connections that are allowed before
// and after lose no packet.
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
		ns.names.sure = ns.names.sure && want.spec.names() && !ns.unsure
		n, err := ns.applySteps(want)
		total += n
		if err == nil && want.spec.names() && !ns.names.sure {
			err = ns.refillNames()
		}
		if err == nil {
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

// applySteps gets there directly, or by way of rulesets in between.
func (ns *Namespace) applySteps(want *Ruleset) (int, error) {
	total := 0
	if ns.unsure {
		if err := ns.read(ns.union(want)); err != nil {
			return 0, err
		}
	}
	ns.recall(want)
	for _, step := range append(ns.bridge(want), want) {
		n, err := ns.applyOnce(step)
		total += n
		if err != nil {
			return total, err
		}
		ns.have, ns.unsure = ns.placed(step), false
	}
	return total, nil
}

func (ns *Namespace) applyOnce(want *Ruleset) (int, error) {
	if ns.unsure {
		if err := ns.read(ns.union(want)); err != nil {
			return 0, err
		}
	}
	want = ns.placed(want)
	changes := ns.withNames(Diff(ns.have, want))
	revokes := want.spec.Mode == policy.Enforce && (ns.owed || mayRevoke(changes))
	if len(changes) == 0 && !revokes {
		return 0, nil
	}
	ns.owed = ns.owed || revokes
	rules, guards := apart(changes)
	var err error
	switch {
	case loosens(ns.have, want):
		err = ns.commitAll(guards.more, guards.rules, rules.more, rules.rules, rules.less, guards.less)
		if err == nil && revokes {
			err = ns.revoke(want.spec, want.Tables)
		}
	case revokes:
		err = ns.tighten(want, rules, guards)
	default:
		err = ns.commitAll(guards.more, rules.more, rules.rules, rules.less, guards.rules, guards.less)
	}
	if err != nil {
		return 0, err
	}
	ns.owed = false
	return len(changes), nil
}

// tighten lets the guards remember and stops births in the namespace, revokes, and then closes the
// guards, which are told of the connections that were there before them.
func (ns *Namespace) tighten(want *Ruleset, rules, guards phases) error {
	spec := want.spec
	warm, cold := warming(spec, guards.less)
	if err := ns.commitAll(append(guards.more, warm...), rules.more); err != nil {
		return err
	}
	seeds, err := ns.seeds(spec, slices.Concat(rules.rules, rules.less))
	if err != nil {
		return err
	}
	// Without a guard the namespace itself stops the resets of what loses its right.
	if !spec.guarded() {
		if _, err := ns.cut(context.Background(), spec); err != nil {
			return err
		}
	}
	if err := ns.commitAll(append(rules.rules, seeds...), rules.less); err != nil {
		return err
	}
	if err := ns.revoke(spec, want.Tables[:1]); err != nil {
		return err
	}
	if seeds, err = ns.seeds(spec, slices.Concat(guards.rules, guards.less)); err != nil {
		return err
	}
	if err := ns.commitAll(append(guards.rules, seeds...), append(guards.less, cold...)); err != nil {
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

// phases are changes in the order in which no packet is lost that is allowed before and after. The
// kernel changes rules and exact keys at one moment, but a packet on its way through the old rules
// meets keys of the new generation, and an interval set changes a moment later than everything else
// (pipapo swaps its copy at the end of the commit). So what is new must be there before rules or
// keys rely on it, and what is old must go when nothing does any more.
//
// With what is denied it is the other way round: an element that comes takes a right away.
type phases struct {
	more  []Change // sets and elements that come; interval sets in which elements come and go
	rules []Change // chains and rules; tables that are made, whole
	less  []Change // elements and sets that go
}

func (p *phases) add(c Change, made, mixed bool) {
	switch {
	case made:
		p.rules = append(p.rules, c)
	case denySet(c.Name) && (c.Op == AddElements || mixed):
		p.less = append(p.less, c)
	case denySet(c.Name) && c.Op == DeleteElements:
		p.more = append(p.more, c)
	case c.Op == AddCounter || c.Op == AddSet || c.Op == AddElements || mixed,
		c.Chain != nil && c.Chain.records && c.Op != DeleteChain:
		p.more = append(p.more, c)
	case c.Op == DeleteElements || c.Op == DeleteSet || c.Op == DeleteCounter:
		p.less = append(p.less, c)
	default:
		p.rules = append(p.rules, c)
	}
}

// apart separates the changes of the namespace's own table from those of the guards, each in phases.
func apart(changes []Change) (rules, guards phases) {
	made := map[string]bool{}
	adds, deletes := map[string]bool{}, map[string]bool{}
	of := func(c Change) string { return fmt.Sprint(c.Table.Place, c.Table.Family, c.Table.Name) }
	set := func(c Change) string { return of(c) + " " + c.Name }
	for _, c := range changes {
		switch c.Op {
		case DeleteTable, CreateTable:
			made[of(c)] = true
		case AddElements:
			adds[set(c)] = true
		case DeleteElements:
			deletes[set(c)] = true
		}
	}
	for _, c := range changes {
		mixed := c.Op == DeleteElements && c.Set.Interval && adds[set(c)] && deletes[set(c)]
		if c.Table.Family == FamilyNetdev {
			guards.add(c, made[of(c)], mixed)
		} else {
			rules.add(c, made[of(c)], mixed)
		}
	}
	return rules, guards
}

// commitAll commits one list of changes after the other.
func (ns *Namespace) commitAll(steps ...[]Change) error {
	for _, step := range steps {
		if err := ns.commit(step); err != nil {
			return err
		}
	}
	return nil
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
		b.compat = ns.features.compat
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

// mayRevoke says whether changes can take a right away: anything but new elements, unless of what is
// denied.
func mayRevoke(changes []Change) bool {
	for _, c := range changes {
		switch c.Op {
		case AddSet, AddCounter:
		case AddElements:
			if denySet(c.Name) {
				return true
			}
		case DeleteElements:
			if !denySet(c.Name) && (strings.HasPrefix(c.Name, "egress") || strings.HasPrefix(c.Name, "ingress")) {
				return true
			}
		default:
			return true
		}
	}
	return false
}
