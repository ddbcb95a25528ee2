package flow

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// schema is the version of what EncodeEdge and EncodeKnown write. A reader refuses what is newer
// than itself.
const schema = 1

// Dirty returns the edges that changed since it was last called, and the keys of edges that were
// stored before and are no more, both sorted. A store writes these and nothing else, in one
// transaction; when it could not, it hands both back to Redo.
func (g *Graph) Dirty() (changed []Edge, removed []Key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, n := range g.dirty {
		n.dirty = false
		if g.edges[n.Key] == n {
			n.saved = true
			changed = append(changed, n.clone())
		}
	}
	g.dirty = nil
	for k := range g.removed {
		removed = append(removed, k)
	}
	clear(g.removed)
	slices.SortFunc(changed, func(a, b Edge) int { return a.Key.Compare(b.Key) })
	slices.SortFunc(removed, Key.Compare)
	return changed, removed
}

// Redo marks what Dirty returned as not yet stored: for a store whose disk was full.
func (g *Graph) Redo(changed []Edge, removed []Key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range changed {
		if n := g.edges[changed[i].Key]; n != nil {
			g.markLocked(n)
		}
	}
	for _, k := range removed {
		if g.edges[k] == nil {
			g.removed[k] = struct{}{}
		}
	}
}

// Restore adds stored edges to the graph, as they were. Those beyond a bound are counted as
// refused. Edges of a group of world addresses that was folded are folded again.
func (g *Graph) Restore(edges []Edge) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range edges {
		e := edges[i].clone()
		n := g.edges[e.Key]
		if n == nil {
			n = g.restoreLocked(e.Key)
		}
		if n == nil {
			g.stats.Refused++
			continue
		}
		n.merge(&e, g.lim)
		n.saved = true
	}
}

// restoreLocked makes or finds the edge that a stored key belongs to.
func (g *Graph) restoreLocked(k Key) *node {
	wide := k.Wide()
	if grp := g.groupOf(k); grp != nil {
		if k == wide && !grp.folded { // stored in two steps: finish the fold
			return g.foldGroupLocked(wide, grp)
		}
		if grp.folded {
			return g.edges[wide]
		}
	}
	n, _ := g.addLocked(k)
	return n
}

// endJSON is an End on disk.
type endJSON struct {
	Kind      string     `json:"kind"`
	Namespace string     `json:"ns,omitempty"`
	Name      string     `json:"name,omitempty"`
	Addr      netip.Addr `json:"addr,omitzero"`
}

func (e End) MarshalJSON() ([]byte, error) {
	j := endJSON{Kind: e.Kind.String(), Name: e.Name, Addr: e.Addr}
	if e.Kind == identity.Pod {
		j.Namespace, j.Name = e.Service.Namespace, e.Service.Name
	}
	return json.Marshal(j)
}

func (e *End) UnmarshalJSON(data []byte) error {
	var j endJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	kind, err := parseKind(j.Kind)
	if err != nil {
		return err
	}
	*e = End{Kind: kind}
	switch kind {
	case identity.Pod:
		e.Service = identity.Service{Namespace: j.Namespace, Name: j.Name}
	case identity.World:
		e.Addr = j.Addr.Unmap().WithZone("")
	case identity.Network, identity.VIP:
		e.Name = j.Name
	}
	return nil
}

func parseKind(s string) (identity.PeerKind, error) {
	for k := identity.World; k <= identity.Network; k++ {
		if k.String() == s {
			return k, nil
		}
	}
	return 0, fmt.Errorf("kind of peer %q: want world, workload, node, dns, vip or network", s)
}

// keyJSON is a Key on disk.
type keyJSON struct {
	V        int               `json:"v"`
	Client   End               `json:"client"`
	Server   End               `json:"server"`
	Protocol identity.Protocol `json:"protocol"`
	Port     uint16            `json:"port"`
}

func (j *keyJSON) key() (Key, error) {
	if j.V < 1 || j.V > schema {
		return Key{}, fmt.Errorf("schema %d: this program knows 1 to %d", j.V, schema)
	}
	if j.Protocol == identity.AnyProtocol {
		return Key{}, fmt.Errorf("protocol any: an edge has one")
	}
	return Key{Client: j.Client, Server: j.Server, Protocol: j.Protocol, Port: j.Port}, nil
}

func (k Key) json() keyJSON {
	return keyJSON{V: schema, Client: k.Client, Server: k.Server, Protocol: k.Protocol, Port: k.Port}
}

// quote keeps names apart from the marks between them.
var quote = strings.NewReplacer("%", "%25", "|", "%7C", ">", "%3E")

// ID is a stable text for the key, unique among keys: what a store files it under. It sorts by
// client.
func (k Key) ID() string {
	end := func(e End) string {
		return strings.Join([]string{e.Kind.String(), quote.Replace(e.Service.Namespace),
			quote.Replace(e.Service.Name), quote.Replace(e.Name), addrText(e.Addr)}, "|")
	}
	return fmt.Sprintf("%s>%s>%d/%d", end(k.Client), end(k.Server), k.Protocol, k.Port)
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// edgeJSON is an Edge on disk.
type edgeJSON struct {
	keyJSON
	First    time.Time         `json:"first"`
	Last     time.Time         `json:"last"`
	AtClient Tally             `json:"atClient"`
	AtServer Tally             `json:"atServer"`
	Clients  Earliest[Member]  `json:"clients"`
	Servers  Earliest[Member]  `json:"servers"`
	VIPs     Earliest[Dialled] `json:"vips"`
	Names    Earliest[DNSName] `json:"names,omitzero"`
}

// EncodeEdge gives the bytes to store for an edge under Key.ID.
func EncodeEdge(e Edge) ([]byte, error) {
	return json.Marshal(edgeJSON{e.Key.json(), e.First, e.Last, e.AtClient, e.AtServer, e.Clients, e.Servers, e.VIPs, e.Names})
}

// DecodeEdge is the reverse of EncodeEdge.
func DecodeEdge(data []byte) (Edge, error) {
	var j edgeJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return Edge{}, fmt.Errorf("stored edge: %w", err)
	}
	k, err := j.key()
	if err != nil {
		return Edge{}, fmt.Errorf("stored edge: %w", err)
	}
	j.Clients.sort()
	j.Servers.sort()
	j.VIPs.sort()
	j.Names.sort()
	return Edge{k, j.First, j.Last, j.AtClient, j.AtServer, j.Clients, j.Servers, j.VIPs, j.Names}, nil
}
