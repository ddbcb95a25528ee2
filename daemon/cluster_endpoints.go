package daemon

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-firewall/bulkhead/gossip"
	"github.com/bulkhead-firewall/bulkhead/identity"
)

// openBook tells the others of all workloads of this node, and no more of those that ended while no
// daemon ran.
func (c *cluster) openBook() {
	if c == nil {
		return
	}
	c.mu.Lock()
	c.open = true
	c.mu.Unlock()
	ids := map[string]bool{}
	for _, w := range c.d.local() {
		ids[w.id] = true
	}
	for _, e := range c.State.Entries(c.d.cfg.Node, gossip.Endpoints) {
		ids[e.Key] = ids[e.Key] || !reserved(e.Key)
	}
	list := make([]string, 0, len(ids))
	for id, ours := range ids {
		if ours {
			list = append(list, id)
		}
	}
	c.publish(list...)
}

// publish tells the others of workloads of this node as the index knows them now, and of those that it
// does not know any more that they are gone.
func (c *cluster) publish(ids ...string) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock() // what is read first is written first
	if !c.open {
		return
	}
	view := c.d.index.View()
	entries := make([]gossip.Entry, 0, len(ids))
	for _, id := range ids {
		e := gossip.Entry{Key: id}
		if w := view.Workload(id); w != nil && w.Local {
			value, err := encodeEndpoint(w)
			if err != nil {
				c.d.log.Error("workload not told to other nodes", "workload", w.Namespace+"/"+w.Name, "err", err)
				continue
			}
			e.Value = value
			c.grant(c.d.cfg.Node, id, w)
		} else {
			c.ungrant(c.d.cfg.Node, id)
		}
		entries = append(entries, e)
	}
	written, err := c.State.Write(gossip.Endpoints, entries...)
	text := ""
	if err != nil {
		text = fmt.Sprintf("other nodes are not told of workloads of this one: %v", err)
	}
	c.d.warn("cluster endpoints", text)
	if written {
		c.touch()
	}
}

// takeEndpoints tells the index what other nodes changed of their workloads.
func (c *cluster) takeEndpoints(changes []gossip.Change) {
	if len(changes) == 0 {
		return
	}
	for _, x := range changes { // first, so that what follows is judged by them
		if x.Key == gossip.BlocksKey {
			c.grantBlocks(x.Owner)
		}
	}
	view := c.d.index.View()
	told := false
	for _, x := range changes {
		if x.Owner != c.d.cfg.Node && !reserved(x.Key) && !c.isShut(x.Owner) {
			told = c.takeEndpoint(view, x.Owner, x.Key) || told
		}
	}
	told = c.takeRegranted(view) || told
	if told {
		c.d.kickAll("cluster")
	}
}

// reserved says that an entry of a book of endpoints is none: package gossip keeps what it says of the
// node itself there.
func reserved(key string) bool { return strings.HasPrefix(key, "@") }

// takeRegranted tells the index of workloads whose addresses are theirs now, or are not any more, by what
// another node said.
func (c *cluster) takeRegranted(view *identity.View) bool {
	told := false
	for _, r := range c.regrant() {
		if r.Node != c.d.cfg.Node && !c.isShut(r.Node) {
			told = c.takeEndpoint(view, r.Node, r.Key) || told
		}
	}
	return told
}

func (c *cluster) isShut(owner string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shut[owner]
}

// takeEndpoint tells the index of one workload of another node, or that it is gone.
func (c *cluster) takeEndpoint(view *identity.View, owner, key string) bool {
	id := endpointID(owner, key)
	value, there := c.State.Entry(owner, gossip.Endpoints, key)
	if !there {
		c.ungrant(owner, key)
		return c.d.index.Withdraw(id, identity.SourceGossip)
	}
	w, err := decodeEndpoint(owner, key, value)
	if err != nil {
		c.d.clusterAlarm(gossip.Alarm{Node: owner, Kind: gossip.AlarmMalformed, What: err.Error()})
		c.ungrant(owner, key)
		return c.d.index.Withdraw(id, identity.SourceGossip)
	}
	w.Addrs = c.grant(owner, key, &w)
	// Whose address it is says who was heard of later, by this node's clock: clocks of others may be
	// hours off.
	w.Since = c.d.now()
	if old := view.Workload(id); old != nil && slices.Equal(old.Addrs, w.Addrs) {
		w.Since = old.Since
	}
	return c.d.index.Upsert(w)
}

// lookAtMembers believes those who came back, and no longer those who have been dead for too long: an
// address of theirs may be somebody else's by now.
func (c *cluster) lookAtMembers() {
	c.taking.Lock()
	defer c.taking.Unlock()
	now := c.d.now()
	since := map[string]time.Time{}
	alive := map[string]bool{}
	members := c.Members()
	c.lookAtTrust(members)
	for _, m := range members {
		alive[m.Node] = m.Status == gossip.Alive
		since[m.Node] = m.Since
	}
	owners := c.State.Owners()
	c.lookAtClaims(alive, owners)
	if c.takeRegranted(c.d.index.View()) {
		c.d.kickAll("cluster: claims")
	}
	for _, owner := range owners {
		switch {
		case owner == c.d.cfg.Node:
		case alive[owner]:
			c.believe(owner)
		case now.Sub(c.absentSince(owner, since[owner], now)) > c.cfg.Grace:
			c.disbelieve(owner)
		}
	}
}

// absentSince is since when a node is no living member. One that was not met since this node started
// counts from then.
func (c *cluster) absentSince(owner string, died, now time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if died.IsZero() {
		if c.absent[owner].IsZero() {
			c.absent[owner] = now
		}
		died = c.absent[owner]
	}
	return died
}

func (c *cluster) believe(owner string) {
	c.mu.Lock()
	was := c.shut[owner]
	delete(c.shut, owner)
	delete(c.absent, owner)
	c.mu.Unlock()
	if was {
		c.d.log.Info("node is back, its workloads are known again", "node", owner)
		c.takeEndpoints(c.all(owner))
	}
}

func (c *cluster) disbelieve(owner string) {
	c.mu.Lock()
	was := c.shut[owner]
	c.shut[owner] = true
	c.mu.Unlock()
	if was {
		return
	}
	list := c.all(owner)
	c.d.log.Warn("node is dead, its workloads' addresses are nobody's now", "node", owner, "count", len(list), "after", c.cfg.Grace)
	for _, x := range list {
		c.d.index.Withdraw(endpointID(owner, x.Key), identity.SourceGossip)
	}
	c.d.kickAll("cluster: " + owner + " is dead")
}

// all names every endpoint of a node, as if it had changed.
func (c *cluster) all(owner string) []gossip.Change {
	var out []gossip.Change
	for _, e := range c.State.Entries(owner, gossip.Endpoints) {
		out = append(out, gossip.Change{Owner: owner, Kind: gossip.Endpoints, Key: e.Key})
	}
	return out
}
