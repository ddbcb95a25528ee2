package daemon

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-firewall/bulkhead/gossip"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// causeCluster is the cause of a generation that another node wrote.
const causeCluster = "cluster"

const (
	// gatherRegisters is how long registers that change gather: what one call wrote comes in several
	// messages, and should take force at once.
	gatherRegisters = 15 * time.Millisecond
	// refollow is how soon registers that could not be stored are tried again.
	refollow = 2 * time.Second
)

// compareIDs orders registers.
func compareIDs(a, b gossip.ID) int {
	return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.Key, b.Key))
}

// note queues registers to be followed.
func (c *cluster) note(ids ...gossip.ID) {
	if len(ids) == 0 {
		return
	}
	c.mu.Lock()
	for _, id := range ids {
		c.heard[id] = struct{}{}
	}
	c.mu.Unlock()
	select {
	case c.hears <- struct{}{}:
	default:
	}
}

// routineRegisters puts in force what other nodes write, until ctx ends.
func (d *Daemon) routineRegisters(ctx context.Context) error {
	c := d.cluster
	if c == nil {
		return nil
	}
	wait := gatherRegisters
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.hears:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		c.mu.Lock()
		ids := slices.SortedFunc(maps.Keys(c.heard), compareIDs)
		clear(c.heard)
		c.mu.Unlock()
		wait = gatherRegisters
		now, later := c.whole(ids)
		c.note(later...)
		if !c.follow(ctx, now) {
			c.note(now...)
			wait = refollow
		}
	}
}

// follow brings what is in force in line with registers; false: what they say could not be stored. One
// that cannot be taken here keeps no other one away.
func (c *cluster) follow(ctx context.Context, ids []gossip.ID) bool {
	if len(ids) == 0 {
		return true
	}
	c.d.change.Lock()
	defer c.d.change.Unlock()
	var records []gossip.Record
	for _, id := range ids {
		switch rec, known := c.State.Look(id.Class, id.Key); {
		case !known:
		case id.Class == gossip.ClassForget:
			c.forget(rec)
		default:
			records = append(records, rec)
		}
	}
	stored, err := c.enactRecords(ctx, records)
	if err != nil && len(records) == 1 {
		c.refuse(records[0], err)
	} else if err != nil {
		for _, rec := range records {
			ok, err := c.enactRecords(ctx, []gossip.Record{rec})
			stored = stored && ok
			if err != nil {
				c.refuse(rec, err)
			}
		}
	}
	c.tellRefused()
	return stored
}

// enactRecords puts in force what registers say, together. An error is one of theirs; nothing was
// changed then. The caller holds d.change.
func (c *cluster) enactRecords(ctx context.Context, records []gossip.Record) (stored bool, err error) {
	p := c.d.newPlan(causeCluster)
	p.heard = true
	for _, rec := range records {
		err := p.hear(rec, c.d.cfg.DefaultMode)
		c.refuse(rec, err)
		if err == nil {
			p.said = append(p.said, rec)
		}
	}
	if len(p.modes.own) > maxModes {
		return true, fmt.Errorf("%d services with a mode of their own, bound %d", len(p.modes.own), maxModes)
	}
	if err := p.finish(); err != nil {
		return true, err
	}
	p.stamp()
	if _, err := c.d.enact(ctx, p); err != nil {
		c.d.warn("cluster follow", fmt.Sprintf("what another node wrote is not in force: %v", err))
		return false, nil
	}
	c.d.warn("cluster follow", "")
	return true, nil
}

// hear adds what a register says to what is wanted. Errors: it cannot be taken here; what is in force
// stays.
func (p *plan) hear(rec gossip.Record, standard policy.Mode) error {
	switch rec.Class {
	case classPolicy:
		return p.hearPolicy(rec)
	case classMode:
		return p.hearMode(rec, standard)
	}
	return nil // of a later version
}

func (p *plan) hearPolicy(rec gossip.Record) error {
	s, err := parseSlot(rec.Key)
	if err != nil {
		return err
	}
	text, there := registerPolicy(rec)
	old, held := p.held[s]
	switch {
	case held && old.from != sourceAPI && there:
		return fmt.Errorf("%s is held by %s on this node, which holds on; remove it there", s, old.from)
	case held && old.from != sourceAPI:
		return nil
	case !there:
		delete(p.held, s)
		return nil
	case held && sameText(old.Text, text):
		return nil
	}
	parsed, err := parseStored(s, fmt.Sprintf("%s from %s", s.store(), rec.Node), text)
	if err != nil {
		return fmt.Errorf("%w; what was in force stays", err)
	}
	p.held[s] = heldPolicy{parsed, sourceAPI, p.at}
	return nil
}

func (p *plan) hearMode(rec gossip.Record, standard policy.Mode) error {
	mode, err := registerMode(rec)
	if err != nil {
		return err
	}
	was := &past{own: map[identity.Service]*policy.Mode{}}
	if rec.Key == allServices {
		was.standard = &mode
	} else {
		s, err := parseService(rec.Key)
		if err != nil {
			return err
		}
		was.own[s] = mode
	}
	p.modes = p.modes.as(was, standard)
	return nil
}

// stamp writes into what is stored who wrote it, and when.
func (p *plan) stamp() {
	writers := map[string]bool{}
	changed := map[gossip.ID]bool{}
	for _, w := range p.writes() {
		changed[w.id] = true
	}
	for _, rec := range p.said {
		if !changed[rec.ID()] {
			continue
		}
		writers[rec.Node] = true
		if s, ok := p.change.Put[rec.Key]; ok && rec.Class == classPolicy {
			s.Time, s.Node = uint64(rec.Time), rec.Node
			p.change.Put[rec.Key] = s
		}
	}
	p.who = strings.Join(slices.Sorted(maps.Keys(writers)), ", ")
	if len(p.who) > maxMessage {
		p.who = p.who[:maxMessage]
	}
}
