package flow

import (
	"strings"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// DNSName is a name that a client looked up, lower case, without the last dot.
type DNSName string

// Compare orders names.
func (n DNSName) Compare(o DNSName) int { return strings.Compare(string(n), string(o)) }

// Named notes under which names the client of a sighting knew the server. Names are kept with edges to
// single addresses of the world: those are what people know by name.
func (g *Graph) Named(k Key, names []string, at time.Time) {
	if k.Server.Kind != identity.World || !k.Server.Addr.IsValid() || len(names) == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.edges[k]
	if n == nil {
		return
	}
	for _, name := range names {
		if n.Names.note(DNSName(name), at, g.lim.Names) {
			g.markLocked(n)
		}
	}
}

// NameList is the names of an edge to one address; of many addresses folded to one edge it gives none,
// since not all of them have each.
func (e *Edge) NameList() []string {
	if !e.Server.Addr.IsValid() {
		return nil
	}
	var out []string
	for _, it := range e.Names.Items {
		out = append(out, string(it.What))
	}
	return out
}
