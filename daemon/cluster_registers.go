package daemon

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/gossip"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Policies, modes and forgotten nodes are registers of the cluster. A change of this node's API goes
//
//	plan → draft (refused here: nothing happened) → store, with the drafts → say → in force
//
// and on every other node what it hears becomes a plan of its own (cluster_follow.go), which takes force
// the same way. A draft stays in the store until the cluster's state was stored with it, and keeps its
// time: no acknowledged write is lost by a crash, and none is later than it was.

// draft makes the writes that a plan is for the other nodes; nil where there are none to tell.
func (c *cluster) draft(p *plan) ([]gossip.Record, error) {
	if c == nil || p.heard {
		return nil, nil
	}
	var out []gossip.Record
	for _, w := range p.writes() {
		value := w.value
		if order, signed := p.orders[w.id]; signed {
			value = order // the document that says the same
		}
		rec, err := c.State.Draft(w.id.Class, w.id.Key, value)
		if errors.Is(err, gossip.ErrNotAllowed) || errors.Is(err, gossip.ErrOutranked) {
			return nil, refusal(err)
		}
		if err != nil {
			return nil, api.Errorf(api.BadRequest, "%v; nothing was changed", err)
		}
		if s, ok := p.change.Put[w.id.Key]; ok && w.id.Class == classPolicy {
			s.Time, s.Node = uint64(rec.Time), rec.Node
			p.change.Put[w.id.Key] = s
		}
		out = append(out, rec)
	}
	bound, ok, err := c.bind(out)
	if err != nil {
		return nil, api.Errorf(api.Internal, "%v; nothing was changed", err)
	}
	if ok {
		out = append([]gossip.Record{bound}, out...)
	}
	return out, nil
}

// commit stores a plan, and tells the other nodes of it. Errors: nothing was changed, here or there.
func (d *Daemon) commit(p *plan) error {
	said, err := d.cluster.draft(p)
	if err != nil {
		return err
	}
	if !p.heard {
		p.said, p.change.Said = said, said
	}
	if err := d.store.Commit(p.change); err != nil {
		return api.Errorf(api.Internal, "%v", err)
	}
	d.cluster.say(said)
	return nil
}

// write is one register that a plan changes.
type write struct {
	id    gossip.ID
	value []byte // nil: deleted
}

// writes lists the registers that a plan changes: of policies that came by the API, and of modes.
func (p *plan) writes() []write {
	var out []write
	for _, x := range p.diff {
		w := write{id: gossip.ID{Class: classPolicy, Key: x.store()}}
		switch {
		case x.after != nil && x.after.from == sourceAPI:
			w.value = []byte(x.after.Text)
		case x.before != nil && x.before.from == sourceAPI:
		default:
			continue // a file of this node
		}
		out = append(out, w)
	}
	mode := func(service string, m *policy.Mode) {
		w := write{id: gossip.ID{Class: classMode, Key: service}}
		if m != nil {
			w.value = []byte(m.String())
		}
		out = append(out, w)
	}
	for service, m := range p.change.Modes {
		mode(service, m)
	}
	if p.change.DefaultMode != nil {
		mode(allServices, *p.change.DefaultMode)
	}
	slices.SortFunc(out, func(a, b write) int { return compareIDs(a.id, b.id) })
	return out
}

// say makes drafted writes, so that the others hear of them, and notes that they are in force here.
func (c *cluster) say(list []gossip.Record) {
	if c == nil || len(list) == 0 {
		return
	}
	text := ""
	if err := c.State.Put(list...); err != nil {
		text = fmt.Sprintf("a change of this node is not told to the others: %v", err)
	}
	c.d.warn("cluster registers", text)
	c.touch()
	for _, rec := range list {
		c.refuse(rec, nil) // what this node writes it can take
	}
	c.tellRefused()
	c.measure(list, time.Now())
}

// resay makes the writes again that a crash may have kept from the others.
func (c *cluster) resay() error {
	list, err := c.d.store.Said()
	if err != nil {
		return fmt.Errorf("changes that were not told to the cluster yet: %w", err)
	}
	return c.State.Put(list...)
}
