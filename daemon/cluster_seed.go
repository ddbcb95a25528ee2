package daemon

import (
	"context"
	"maps"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/gossip"
)

// followAll brings what is in force in line with all registers, and gives the cluster what it never
// heard of: what this node had when it was alone.
func (c *cluster) followAll(ctx context.Context) {
	ids := map[gossip.ID]struct{}{}
	for _, class := range []string{classPolicy, classMode, gossip.ClassForget} {
		for _, rec := range c.State.List(class) {
			ids[rec.ID()] = struct{}{}
		}
	}
	for s, h := range c.d.rules.Load().held {
		if h.from == sourceAPI {
			ids[gossip.ID{Class: classPolicy, Key: s.store()}] = struct{}{}
		}
	}
	m := c.d.modes.Load()
	for s := range m.own {
		ids[gossip.ID{Class: classMode, Key: s.String()}] = struct{}{}
	}
	if m.set {
		ids[gossip.ID{Class: classMode, Key: allServices}] = struct{}{}
	}
	list := slices.SortedFunc(maps.Keys(ids), compareIDs)
	if err := c.seed(list); err != nil {
		c.d.log.Error("what this node had before is not told to the cluster", "err", err)
	}
	if !c.follow(ctx, list) {
		c.note(list...)
	}
}

// firstWrite is the time of what was written before there was a cluster: whatever the cluster says of
// the same counts more.
const firstWrite = gossip.Timestamp(1) << 16

// seed writes registers that nobody ever wrote from what the store has: policies at the time of their
// write or, from before there was a cluster, when they were applied; modes, whose time nobody knows,
// before all.
func (c *cluster) seed(ids []gossip.ID) error {
	stored, err := c.d.store.Policies()
	if err != nil {
		return err
	}
	m := c.d.modes.Load()
	var list []gossip.Record
	for _, id := range ids {
		if _, known := c.State.Look(id.Class, id.Key); known {
			continue
		}
		rec := gossip.Record{Class: id.Class, Key: id.Key, Node: c.d.cfg.Node, Time: firstWrite}
		switch p, isPolicy := stored[id.Key]; {
		case id.Class == classPolicy && isPolicy:
			rec.Value, rec.Time = []byte(p.Text), gossip.Timestamp(max(p.Applied.UnixMilli(), 1))<<16
			if p.Time != 0 {
				rec.Time, rec.Node = gossip.Timestamp(p.Time), p.Node
			}
		case id.Class == classMode:
			mode := m.standardOf()
			if id.Key != allServices {
				s, err := parseService(id.Key)
				if err != nil {
					return err
				}
				mode = m.ownOf(s)
			}
			if mode == nil {
				continue
			}
			rec.Value = []byte(mode.String())
		default:
			continue
		}
		list = append(list, rec)
	}
	return c.State.Put(list...)
}
