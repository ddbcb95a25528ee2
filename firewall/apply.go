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
		if err := ns.ready(); err != nil {
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
	if len(changes) == 0 {
		return 0, nil
	}
	if loosens(ns.have, want) {
		if err := ns.commit(AtNode, changes); err != nil {
			return 0, err
		}
		return len(changes), ns.commit(InWorkload, changes)
	}
	early, late := changes[:0:0], changes
	if len(ns.have.Tables) > 0 {
		early, late = split(changes)
	}
	if err := ns.commit(AtNode, early); err != nil {
		return 0, err
	}
	late, err := ns.tighten(want, changes, late)
	if err != nil {
		return len(early), err
	}
	return len(changes), ns.commit(AtNode, late)
}

// tighten stops births in the namespace, cuts, and gives the changes at the guard that must follow,
// with what it must know of the connections that are there.
func (ns *Namespace) tighten(want *Ruleset, all, late []Change) ([]Change, error) {
	spec := want.spec
	cuts := spec.Mode == policy.Enforce && mayRevoke(all)
	var seeds []Change
	if cuts {
		sockets, err := ns.sockets()
		if err != nil {
			return nil, err
		}
		seeds = spec.seeds(all, sockets)
		// Without a guard the namespace itself stops the resets of what loses its right.
		if !spec.guarded() {
			if _, err := ns.cut(context.Background(), spec); err != nil {
				return nil, err
			}
		}
	}
	if err := ns.commit(InWorkload, append(all[:len(all):len(all)], seeds...)); err != nil {
		return nil, err
	}
	if !cuts {
		return late, nil
	}
	if _, err := ns.cut(context.Background(), spec); err != nil {
		return nil, err
	}
	// Connections that were born since are remembered by the guard itself, where it existed before.
	return append(late[:len(late):len(late)], seeds...), nil
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

// commit carries out the changes of one place as one transaction.
func (ns *Namespace) commit(p Place, changes []Change) error {
	b := newBatch()
	for _, c := range changes {
		if c.Table.Place == p {
			c.encode(b, ns.features.tableFlags)
		}
	}
	return ns.socket(p).commit(b)
}

// loosens says whether a guard stops to judge frames: then it goes before the namespace.
func loosens(have, want *Ruleset) bool {
	for _, t := range have.Tables {
		if w := want.table(t); t.Place == AtNode && t.chain("raw") != nil && (w == nil || w.chain("raw") == nil) {
			return true
		}
	}
	return false
}

// split takes out of the changes at the node what only adds rights or memory, and can go first. In
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
		if c.Table.Place == AtNode && first && !made[c.Table] {
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
