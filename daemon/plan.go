package daemon

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/gossip"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// What made a generation, for the history.
const (
	causeApply    = "apply"
	causeDelete   = "delete"
	causePromote  = "promote"
	causeEvidence = "promoted on evidence"
	causeRollback = "rollback"
	causeRefused  = "not wanted"
	causeDeadline = "not confirmed"
	causeMode     = "mode"
	causeFiles    = "policyDir"
)

// What the history takes of a caller's words.
const (
	maxFileNames = 20   // of a generation's files
	maxFileName  = 4096 // bytes; PATH_MAX of linux/limits.h
	maxMessage   = 1000 // bytes
)

// plan is a change of policies and modes on its way: it is filled with what is wanted, finish works
// out what that changes, enact puts it in force.
type plan struct {
	cause   string
	message string
	files   []string      // as the caller named them
	confirm time.Duration // 0: nobody has to confirm it
	heard   bool          // other nodes wrote it
	who     string        // of them

	before *rulebook
	held   map[slot]heldPolicy  // what is wanted
	fresh  []policy.Policy      // what the request brought
	arm    map[slot]uint64      // shadows that are to take force by themselves on so many connections
	fit    *modes               // modes before
	modes  *modes               // wanted
	orders map[gossip.ID][]byte // documents that say a removal or a mode, by the register that keeps them

	at     time.Time
	rules  *rulebook // from finish on
	result api.ApplyResult
	change Change
	diff   []slotChange
	said   []gossip.Record // registers that it is, for the cluster
}

// slotChange is one policy before and after; nil is none.
type slotChange struct {
	slot
	before, after *heldPolicy
}

// newPlan begins with everything as it is. The caller holds d.change until enact has returned.
func (d *Daemon) newPlan(cause string) *plan {
	p := &plan{cause: cause, before: d.rules.Load(), fit: d.modes.Load(), at: d.judged()}
	p.held, p.modes = maps.Clone(p.before.held), p.fit
	p.result = api.ApplyResult{Created: []string{}, Changed: []string{}, Unchanged: []string{}, Removed: []string{}}
	return p
}

// finish compares what is wanted with what is, and writes down what the store must learn of it. An
// error is one of the policies together; nothing was changed then.
func (p *plan) finish() (err error) {
	p.diff = diffSlots(p.before.held, p.held)
	p.rules = p.before
	if len(p.diff) > 0 {
		if p.rules, err = newRulebook(p.held, p.at); err != nil {
			return err
		}
	}
	c := &p.change
	c.Put = map[string]StoredPolicy{}
	if c.Evidence == nil {
		c.Evidence = map[string]*StoredEvidence{}
	}
	changes := make([]StoredChange, 0, len(p.diff))
	c.Texts = map[Hash]string{}
	for _, x := range p.diff {
		p.note(x)
		stored := StoredChange{Slot: x.store(), Before: stateOf(x.before), After: stateOf(x.after)}
		changes = append(changes, stored)
		if x.before != nil && x.before.from == sourceAPI {
			c.Texts[stored.Before.Text] = x.before.Text
		}
		if x.shadow {
			c.Evidence[x.store()] = nil // what was seen of another text says nothing of this one
		}
		switch {
		case x.after != nil && x.after.from == sourceAPI:
			c.Put[x.store()] = StoredPolicy{File: x.after.Source, Text: x.after.Text, Applied: x.after.applied}
		case x.before != nil && x.before.from == sourceAPI:
			c.Delete = append(c.Delete, x.store())
		}
	}
	modes := p.diffModes()
	if len(changes)+len(modes) > 0 {
		c.Generation = &StoredGeneration{Time: p.at, Cause: p.cause, Message: p.message, Files: p.files, Changes: changes, Modes: modes}
	}
	return nil
}

// note tells the caller of one change.
func (p *plan) note(x slotChange) {
	switch {
	case x.before == nil:
		p.result.Created = append(p.result.Created, x.String())
	case x.after == nil:
		p.result.Removed = append(p.result.Removed, x.String())
	default:
		p.result.Changed = append(p.result.Changed, x.String())
	}
}

func stateOf(h *heldPolicy) *StoredState {
	if h == nil {
		return nil
	}
	return &StoredState{Text: hashOf(h.Text), From: h.from, File: h.Source}
}

func diffSlots(before, after map[slot]heldPolicy) []slotChange {
	var out []slotChange
	for s, b := range before {
		if a, still := after[s]; !still {
			out = append(out, slotChange{s, &b, nil})
		} else if !b.same(a) {
			out = append(out, slotChange{s, &b, &a})
		}
	}
	for s, a := range after {
		if _, was := before[s]; !was {
			out = append(out, slotChange{s, nil, &a})
		}
	}
	slices.SortFunc(out, func(a, b slotChange) int { return compareSlots(a.slot, b.slot) })
	return out
}

// diffModes writes the modes that change into the change and for the caller.
func (p *plan) diffModes() []StoredModeChange {
	var out []StoredModeChange
	p.change.Modes = map[string]*policy.Mode{}
	seen := map[identity.Service]bool{}
	for _, m := range []map[identity.Service]policy.Mode{p.fit.own, p.modes.own} {
		for s := range m {
			seen[s] = true
		}
	}
	for _, s := range sortedServices(seen) {
		before, after := p.fit.ownOf(s), p.modes.ownOf(s)
		if equalModes(before, after) {
			continue
		}
		p.change.Modes[s.String()] = after
		out = append(out, StoredModeChange{s.String(), before, after})
		p.result.Modes = append(p.result.Modes, fmt.Sprintf("%s: %s → %s", s, p.fit.of(s), p.modes.of(s)))
	}
	if before, after := p.fit.standardOf(), p.modes.standardOf(); !equalModes(before, after) {
		p.change.DefaultMode = &after
		out = append(out, StoredModeChange{allServices, before, after})
		p.result.Modes = append(p.result.Modes, fmt.Sprintf("all other services: %s → %s", p.fit.standard, p.modes.standard))
	}
	return out
}

func equalModes(a, b *policy.Mode) bool { return a == b || a != nil && b != nil && *a == *b }
