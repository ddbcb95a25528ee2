package daemon

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// planRollback makes the state after a former generation what is wanted. Without a number it undoes
// the newest generation, or the one that waits for confirmation.
func (d *Daemon) planRollback(r api.ApplyRequest) (*plan, error) {
	pending := d.pending.Load()
	if pending != nil && (r.Generation == nil || *r.Generation+1 == pending.Generation) {
		return d.planUndo(pending, causeRefused)
	}
	newest := d.generation.Load()
	switch {
	case pending != nil:
		return nil, pending.refusal()
	case r.Generation != nil:
		newest = *r.Generation
	case newest == 0:
		return nil, api.Errorf(api.NotFound, "nothing was ever changed: there is nothing to roll back")
	default:
		newest--
	}
	was, err := d.after(newest)
	if err != nil {
		return nil, err
	}
	p := d.newPlan(fmt.Sprintf("%s to %d", causeRollback, newest))
	left, err := d.restorePast(p, was)
	if err != nil {
		return nil, err
	}
	if len(left) > 0 && !r.KeepFiles {
		return nil, api.Errorf(api.Conflict, "%s; files of policyDir say what their policies are: change them, or keep what they hold as it is (--keep-files)",
			strings.Join(left[:min(3, len(left))], "; "))
	}
	p.result.Warnings = append(p.result.Warnings, left...)
	return p, nil
}

// planUndo takes back one generation that was not confirmed, and nothing that came after it: of those
// only files of the watched folder and modes could, and both stay as they are now.
func (d *Daemon) planUndo(pending *StoredPending, cause string) (*plan, error) {
	g, err := d.stored(pending.Generation)
	if err != nil {
		return nil, err
	}
	p := d.newPlan(fmt.Sprintf("%s: generation %d", cause, pending.Generation))
	was := &past{policies: map[slot]*StoredState{}, own: map[identity.Service]*policy.Mode{}}
	undo := *g
	undo.Changes = slices.DeleteFunc(slices.Clone(g.Changes), func(c StoredChange) bool { return !p.holds(c) })
	undo.Modes = slices.DeleteFunc(slices.Clone(g.Modes), func(m StoredModeChange) bool { return !p.fits(m) })
	if err := was.takeBack(&undo); err != nil {
		return nil, err
	}
	left, err := d.restorePast(p, was)
	p.result.Warnings = append(p.result.Warnings, left...)
	var none *StoredPending
	p.change.Pending, p.change.Settled = &none, map[uint64]string{pending.Generation: stateRolledBack}
	return p, err
}

// holds says whether a policy is still as a generation made it.
func (p *plan) holds(c StoredChange) bool {
	s, err := parseSlot(c.Slot)
	if err != nil {
		return false
	}
	h, held := p.held[s]
	if c.After == nil || !held {
		return c.After == nil && !held
	}
	return h.from == c.After.From && hashOf(h.Text) == c.After.Text
}

// fits says whether a mode is still as a generation made it.
func (p *plan) fits(m StoredModeChange) bool {
	if m.Service == allServices {
		return equalModes(p.modes.standardOf(), m.After)
	}
	s, err := parseService(m.Service)
	return err == nil && equalModes(p.modes.ownOf(s), m.After)
}

// restorePast fills a plan with a former state. What only a file of the watched folder can bring back
// is left as it is, and said.
func (d *Daemon) restorePast(p *plan, was *past) (left []string, err error) {
	var texts []Hash
	for _, s := range slices.SortedFunc(maps.Keys(was.policies), compareSlots) {
		then := was.policies[s]
		now, held := p.held[s]
		switch {
		case then == nil && !held, then != nil && held && hashOf(now.Text) == then.Text:
			delete(was.policies, s)
		case held && now.from != sourceAPI:
			left = append(left, fmt.Sprintf("%s was different, and %s holds it", s, now.from))
			delete(was.policies, s)
		case then != nil && then.From != sourceAPI:
			left = append(left, fmt.Sprintf("%s was held by %s, which has it no more", s, then.From))
			delete(was.policies, s)
		case then != nil:
			texts = append(texts, then.Text)
		}
	}
	known, err := d.store.Texts(texts)
	if err != nil {
		return nil, err
	}
	for s, then := range was.policies {
		if then == nil {
			delete(p.held, s)
			continue
		}
		restored, err := parseStored(s, then.File, known[then.Text])
		if err != nil {
			return nil, fmt.Errorf("history: %w", err)
		}
		p.held[s] = heldPolicy{restored, sourceAPI, p.at}
	}
	p.modes = p.modes.as(was, d.cfg.DefaultMode)
	return left, nil
}

// parseStored reads a policy of the store: one, of that key.
func parseStored(s slot, file, text string) (policy.Policy, error) {
	list, err := policy.Parse(file, []byte(text))
	if err == nil && (len(list) != 1 || list[0].Key() != s.Key) {
		err = fmt.Errorf("holds %d policies, want one of that name", len(list))
	}
	if err != nil {
		return policy.Policy{}, fmt.Errorf("%s: %w", s.store(), err)
	}
	list[0].Source, list[0].Shadow = file, s.shadow
	return list[0], nil
}

// as is m with what a former state says of modes.
func (m *modes) as(was *past, configured policy.Mode) *modes {
	next := &modes{own: map[identity.Service]policy.Mode{}, standard: m.standard, set: m.set}
	maps.Copy(next.own, m.own)
	for s, mode := range was.own {
		if mode == nil {
			delete(next.own, s)
		} else {
			next.own[s] = *mode
		}
	}
	if was.standard != nil {
		if next.set = *was.standard != nil; next.set {
			next.standard = **was.standard
		} else {
			next.standard = configured
		}
	}
	return next
}
