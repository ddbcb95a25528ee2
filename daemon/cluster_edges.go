package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/gossip"
)

// Each node tells the others which edges it saw. Counters change all the time, and nobody needs to know
// them to the last connection: an edge is told when it is new, when something was allowed or denied on it
// for the first time, when it has twice the connections that were told, and when it was not told for
// edgesRefresh although it lives.

const (
	// edgesBeat is how often edges are told.
	edgesBeat = time.Second
	// edgesAtOnce bounds how many are told in one beat, so that no burst of them keeps endpoints and
	// policies waiting.
	edgesAtOnce = 64
	// edgesRefresh is how old what was told of a living edge may be.
	edgesRefresh = 10 * time.Minute
	// maxSharedEdges bounds the edges that one node tells; each has some 500 bytes on every node.
	maxSharedEdges = 4096
	// maxRemoteEdges bounds the edges of all other nodes that are looked at together.
	maxRemoteEdges = 65_536
	// namedMembers bounds the workloads that are named with an edge.
	namedMembers = 4
)

// edges is what this node tells of its edges, and what it heard of those of others.
type edges struct {
	mu      sync.Mutex
	told    map[string]toldEdge  // by key; bounded by maxSharedEdges
	due     map[string]flow.Edge // that changed; bounded by the graph
	gone    map[string]bool
	beyond  uint64 // that found no room
	known   []flow.Edge
	knownOf string // versions of the books that known is of
}

// toldEdge is what others know of an edge.
type toldEdge struct {
	count                  uint64
	allowed, denied, would bool
	last                   time.Time
}

func toldOf(e *flow.Edge) toldEdge {
	return toldEdge{count: e.Count() + e.WouldDeny() + e.Denied(), allowed: e.Allowed(), denied: e.Denied() > 0, would: e.WouldDeny() > 0, last: e.Last}
}

// worth says whether an edge is worth telling again.
func (t toldEdge) worth(e *flow.Edge) bool {
	now := toldOf(e)
	return now.allowed != t.allowed || now.denied != t.denied || now.would != t.would || now.count >= 2*t.count || now.last.Sub(t.last) >= edgesRefresh
}

// learned takes note of edges of this node that changed, or are no more.
func (c *cluster) learned(changed []flow.Edge, removed []flow.Key) {
	if c == nil {
		return
	}
	c.edges.mu.Lock()
	defer c.edges.mu.Unlock()
	for _, k := range removed {
		delete(c.edges.due, k.ID())
		c.edges.gone[k.ID()] = true
	}
	for i := range changed {
		id := changed[i].Key.ID()
		delete(c.edges.gone, id)
		if t, told := c.edges.told[id]; !told || t.worth(&changed[i]) {
			c.edges.due[id] = changed[i]
		}
	}
}

// routineEdges tells the others of edges until ctx ends.
func (d *Daemon) routineEdges(ctx context.Context) error {
	c := d.cluster
	if c == nil {
		return nil
	}
	c.openEdges()
	return every(ctx, edgesBeat, c.tellEdges)
}

// openEdges makes this node's book what the graph of a former daemon was.
func (c *cluster) openEdges() {
	c.learned(c.d.graph.Edges(), nil)
	c.edges.mu.Lock()
	defer c.edges.mu.Unlock()
	for _, e := range c.State.Entries(c.d.cfg.Node, gossip.Edges) {
		if _, still := c.edges.due[e.Key]; !still {
			c.edges.gone[e.Key] = true
		} else if was, err := decodeSharedEdge(e.Value); err == nil {
			c.edges.told[e.Key] = toldOf(&was)
		}
	}
}

// tellEdges writes some of what is due into this node's book.
func (c *cluster) tellEdges() {
	c.edges.mu.Lock()
	defer c.edges.mu.Unlock()
	var list []gossip.Entry
	for id := range c.edges.gone {
		delete(c.edges.gone, id)
		delete(c.edges.told, id)
		if list = append(list, gossip.Entry{Key: id}); len(list) >= edgesAtOnce {
			break
		}
	}
	for id, e := range c.edges.due {
		if len(list) >= edgesAtOnce {
			break
		}
		delete(c.edges.due, id)
		t, told := c.edges.told[id]
		if told && !t.worth(&e) {
			continue
		}
		if !told && len(c.edges.told) >= maxSharedEdges {
			c.edges.beyond++
			continue
		}
		value, err := encodeSharedEdge(e)
		if err != nil {
			continue // an edge that cannot be stored either; the store says so
		}
		c.edges.told[id] = toldOf(&e)
		list = append(list, gossip.Entry{Key: id, Value: value})
	}
	if len(list) == 0 {
		return
	}
	_, err := c.State.Write(gossip.Edges, list...)
	text := ""
	if err != nil {
		text = fmt.Sprintf("edges that this node saw are not told to others: %v", err)
	}
	c.d.warn("cluster edges", text)
	c.touch()
}

// encodeSharedEdge leaves out what others need not know.
func encodeSharedEdge(e flow.Edge) ([]byte, error) {
	e.Clients.Items = slices.Clone(e.Clients.Items[:min(len(e.Clients.Items), namedMembers)])
	e.Servers.Items = slices.Clone(e.Servers.Items[:min(len(e.Servers.Items), namedMembers)])
	return flow.EncodeEdge(e)
}

func decodeSharedEdge(value []byte) (flow.Edge, error) {
	e, err := flow.DecodeEdge(value)
	if err == nil && strings.ContainsFunc(e.Key.String(), unicode.IsControl) {
		err = fmt.Errorf("edge %q: control characters", e.Key.String())
	}
	return e, err
}

// remoteEdges gives what other nodes saw. Shared: it must not be written to.
func (c *cluster) remoteEdges() []flow.Edge {
	if c == nil {
		return nil
	}
	var versions strings.Builder
	var owners []string
	for _, h := range c.State.Heads() {
		if h.Kind == gossip.Edges && h.Owner != c.d.cfg.Node {
			fmt.Fprintf(&versions, "%q %d.%d\n", h.Owner, h.Version.Epoch, h.Version.Seq)
			owners = append(owners, h.Owner)
		}
	}
	c.edges.mu.Lock()
	defer c.edges.mu.Unlock()
	if c.edges.knownOf == versions.String() {
		return c.edges.known
	}
	var all []flow.Edge
	for _, owner := range owners {
		for _, entry := range c.State.Entries(owner, gossip.Edges) {
			e, err := decodeSharedEdge(entry.Value)
			if err != nil || e.Key.ID() != entry.Key || len(all) >= maxRemoteEdges {
				c.d.log.Debug("edge refused", "node", owner, "edge", entry.Key, "err", err)
				continue
			}
			all = append(all, e)
		}
	}
	c.edges.known, c.edges.knownOf = all, versions.String()
	return all
}

// edges is what this node and all others saw, as one graph. Both ends of an edge may be on nodes of
// their own: each end's count is the sum of what the nodes of its workloads saw.
func (d *Daemon) edges() []flow.Edge { return d.allEdges().Edges() }

// allEdges is this node's graph, with what others saw where there are any.
func (d *Daemon) allEdges() *flow.Graph {
	remote := d.cluster.remoteEdges()
	if len(remote) == 0 {
		return d.graph
	}
	g := flow.NewGraph(flow.Limits{})
	g.Restore(d.graph.Edges())
	g.Restore(remote)
	return g
}

// witnesses are the other nodes that tell what they see.
func (c *cluster) witnesses() map[string]bool {
	if c == nil {
		return nil
	}
	out := map[string]bool{}
	for _, owner := range c.State.Owners() {
		out[owner] = owner != c.d.cfg.Node
	}
	return out
}
