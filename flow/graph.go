package flow

import (
	"slices"
	"sync"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Limits bounds what a Graph keeps. A field that is zero takes the default named beside it.
type Limits struct {
	Edges      int // all edges: 65536, some 600 bytes each
	PerClient  int // edges that one client may cause, so that its scan leaves room for the others: 4096
	WorldAddrs int // world addresses kept apart per (service, direction, protocol, port): 256
	Workloads  int // workloads named per end of an edge: 16
	VIPs       int // virtual addresses named per edge: 4
	Names      int // DNS names kept per edge to an address of the world: 4
	Backends   int // services and ports behind one virtual address: 16
}

func (l Limits) withDefaults() Limits {
	set := func(field *int, to int) {
		if *field <= 0 {
			*field = to
		}
	}
	set(&l.Edges, 65536)
	set(&l.PerClient, 4096)
	set(&l.WorldAddrs, 256)
	set(&l.Workloads, 16)
	set(&l.VIPs, 4)
	set(&l.Names, 4)
	set(&l.Backends, 16)
	return l
}

// Stats counts what a Graph could not keep as it came. Nothing is dropped without one of these.
type Stats struct {
	Edges    int    `json:"edges"`    // in the graph now
	Refused  uint64 `json:"refused"`  // records that would have made an edge beyond Limits.Edges or PerClient
	Folded   uint64 `json:"folded"`   // groups of world addresses folded to "world"
	Unsided  uint64 `json:"unsided"`  // records that do not say who opened the connection, or to where
	Backends uint64 `json:"backends"` // backends of a virtual address beyond Limits.Backends
}

// Graph folds flow records to edges. All methods may be called from any goroutine.
type Graph struct {
	lim Limits

	mu      sync.Mutex
	edges   map[Key]*node
	clients map[End]int      // edges that each client caused, see charge
	world   map[Key]*group   // by Key.Wide
	dirty   []*node          // changed since Dirty was called; a node is in it once
	removed map[Key]struct{} // saved edges folded away since Dirty was called
	stats   Stats
}

// node is an edge with its bookkeeping.
type node struct {
	Edge
	dirty bool // in Graph.dirty
	saved bool // Dirty handed it out before, or Restore brought it: a store may hold it
}

// NewGraph makes an empty graph.
func NewGraph(lim Limits) *Graph {
	return &Graph{
		lim:     lim.withDefaults(),
		edges:   make(map[Key]*node),
		clients: make(map[End]int),
		world:   make(map[Key]*group),
		removed: make(map[Key]struct{}),
	}
}

// Sighting is what Observe made of a record.
type Sighting struct {
	Key     Key   // with the exact address of the world, also when the edge is folded
	New     bool  // the graph had no such edge, or had only ever seen it refused
	Folded  bool  // the edge is one of many world addresses that are kept as one
	Refused bool  // a bound was reached: the edge is not in the graph
	More    []Key // further edges, when several services or ports stand behind a virtual address
}

// Observe folds a record into the graph. Client and server are the record's addresses with their
// names; backends are what stands behind the server's address, protocol and port when that is
// virtual (View.Backends), else nil. It returns false, and changes no edge, for what is not a
// connection (Spoof, Raw), for Usage of an edge that was never born, and for a record that does not
// say who opened the connection.
//
// Denied records, and births that only mode alert let through, are kept but never make an edge
// Allowed. Usage carries increments since the last one of the same peer.
func (g *Graph) Observe(r Record, client, server identity.Peer, backends []identity.Backend) (Sighting, bool) {
	if r.Event != Birth && r.Event != Denied && r.Event != Usage {
		return Sighting{}, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !sided(&r) {
		g.stats.Unsided++
		return Sighting{}, false
	}
	key := Key{Client: EndOf(client), Server: EndOf(server), Protocol: r.Protocol, Port: r.Port}
	if len(backends) > 0 {
		return g.observeVIP(&r, key, client, server, backends)
	}
	var via Dialled
	if server.Kind == identity.VIP {
		via = dialled(&r, server)
	}
	return g.foldLocked(&r, key, client, server, via)
}

func dialled(r *Record, server identity.Peer) Dialled {
	return Dialled{Name: server.Network, Key: identity.VIPKey{Addr: r.Server, Protocol: r.Protocol, Port: r.Port}}
}

// sided says whether a record tells both ends, the direction, and the port if there must be one.
func sided(r *Record) bool {
	return (r.Direction == policy.Egress || r.Direction == policy.Ingress) &&
		r.Client.IsValid() && r.Server.IsValid() &&
		r.Protocol != identity.AnyProtocol && (r.Port != 0 || !r.Protocol.HasPorts())
}

// observeVIP records a connection to a virtual address for what stands behind it: the backend's
// service and the backend's port. Which of several the connection went to is not known here, and
// policy must allow all of them (ARCHITECTURE 9), so each gets its edge.
func (g *Graph) observeVIP(r *Record, key Key, client, server identity.Peer, backends []identity.Backend) (Sighting, bool) {
	via := dialled(r, server)
	var first Sighting
	ok, n := false, 0
	for i, b := range backends {
		if b.Workload == nil || slices.ContainsFunc(backends[:i], func(o identity.Backend) bool { return sameTarget(o, b) }) {
			continue
		}
		if n++; n > g.lim.Backends {
			g.stats.Backends++
			continue
		}
		key.Server, key.Port = EndOf(identity.Peer{Kind: identity.Pod, Workload: b.Workload}), b.Port
		s, folded := g.foldLocked(r, key, client, identity.Peer{}, via)
		switch {
		case n == 1:
			first = s
		default:
			first.More = append(first.More, s.Key)
			first.New = first.New || s.New
		}
		ok = ok || folded
	}
	return first, ok
}

func sameTarget(a, b identity.Backend) bool {
	return a.Workload != nil && a.Port == b.Port && a.Workload.Service == b.Workload.Service
}

// foldLocked adds one record to one edge.
func (g *Graph) foldLocked(r *Record, key Key, client, server identity.Peer, via Dialled) (Sighting, bool) {
	s := Sighting{Key: key}
	at := key
	if grp := g.groupOf(key); grp != nil && grp.folded {
		at, s.Folded = key.Wide(), true
	}
	n := g.edges[at]
	if n == nil {
		if r.Event == Usage {
			return s, false
		}
		s.New = true
		if n, s.Folded = g.addLocked(at); n == nil {
			g.stats.Refused++
			s.Refused = true
			return s, true
		}
	}
	wasAllowed := n.Allowed()
	n.count(r)
	if r.Event != Usage {
		n.meet(r, client, server, via, g.lim)
	} else if r.Time.After(n.Last) {
		n.Last = r.Time
	}
	s.New = s.New || !wasAllowed && n.Allowed()
	g.markLocked(n)
	return s, true
}

// count adds a record's numbers to the end that reported it.
func (e *Edge) count(r *Record) {
	t := &e.AtServer
	if r.Direction == policy.Egress {
		t = &e.AtClient
	}
	t.Bytes += r.Bytes
	n := r.Count
	if r.Event != Usage {
		n = max(n, 1)
	}
	switch {
	case r.Event == Usage && t.Allowed == 0 && t.WouldDeny > 0:
		t.WouldDeny += n // counters of an element know no verdict; it is still the one of its birth
	case r.Event == Usage:
		if t.Allowed > 0 {
			t.Allowed += n
		}
	case r.Event == Denied || r.Verdict == policy.Deny:
		t.Denied += n
	case r.Verdict == policy.Alert:
		t.WouldDeny += n
	default:
		t.Allowed += n
	}
}

// meet notes when, and who it was.
func (e *Edge) meet(r *Record, client, server identity.Peer, via Dialled, lim Limits) {
	if e.First.IsZero() || r.Time.Before(e.First) {
		e.First = r.Time
	}
	if r.Time.After(e.Last) {
		e.Last = r.Time
	}
	if w := client.Workload; w != nil && client.Kind == identity.Pod {
		e.Clients.note(Member{w.Namespace, w.Name}, r.Time, lim.Workloads)
	}
	if w := server.Workload; w != nil && server.Kind == identity.Pod {
		e.Servers.note(Member{w.Namespace, w.Name}, r.Time, lim.Workloads)
	}
	if via.Key.Addr.IsValid() {
		e.VIPs.note(via, r.Time, lim.VIPs)
	}
}

// charge is who pays for an edge. A workload pays for what it opens; anybody else shares one account
// per server, so that a scan from outside takes nothing from the workloads.
func charge(k Key) End {
	if k.Client.Kind == identity.Pod {
		return k.Client
	}
	return End{Kind: k.Client.Kind, Service: k.Server.Service}
}

func (g *Graph) markLocked(n *node) {
	if !n.dirty {
		n.dirty = true
		g.dirty = append(g.dirty, n)
	}
}

// Edges returns a copy of all edges, sorted by Key.
func (g *Graph) Edges() []Edge {
	g.mu.Lock()
	out := make([]Edge, 0, len(g.edges))
	for _, n := range g.edges {
		out = append(out, n.clone())
	}
	g.mu.Unlock()
	slices.SortFunc(out, func(a, b Edge) int { return a.Key.Compare(b.Key) })
	return out
}

// Edge returns a copy of one edge. A world address that was folded is found by its exact key too.
func (g *Graph) Edge(k Key) (Edge, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.edges[k]
	if n == nil {
		n = g.edges[k.Wide()]
	}
	if n == nil {
		return Edge{}, false
	}
	return n.clone(), true
}

// Stats returns the counters.
func (g *Graph) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.stats
	s.Edges = len(g.edges)
	return s
}
