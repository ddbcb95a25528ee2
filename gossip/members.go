package gossip

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

// Status of a member.
type Status string

const (
	Alive Status = "alive"
	Dead  Status = "dead" // not heard; its endpoints are kept for a time
	Left  Status = "left" // said goodbye
)

// Member is what is known of a node.
type Member struct {
	Node    string         `json:"node"`
	Address netip.AddrPort `json:"address"`
	Status  Status         `json:"status"`
	Since   time.Time      `json:"since"` // of the status
	Heard   time.Time      `json:"heard"` // of its last message; zero: none yet
	Program string         `json:"program"`
	State   Version        `json:"state"`    // of its endpoints, as this node has them
	Speaks  int            `json:"protocol"` // the highest version of messages that it reads; 0: not heard yet
	Trust   string         `json:"trust"`    // a hash of whose policies it trusts, in hex
}

type known struct {
	node   *memberlist.Node
	status Status
	since  time.Time
	heard  time.Time
	meta   []byte // that was verified last
}

// maxNodes bounds how many nodes are known, the dead ones too.
const maxNodes = 20_000

// Members lists all nodes that are or lately were part of the cluster, by name, this one too.
func (g *Cluster) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []Member
	for name, k := range g.nodes {
		m := Member{Node: name, Status: k.status, Since: k.since, Heard: k.heard, State: g.State.Version(name, Endpoints)}
		if a, ok := netip.AddrFromSlice(k.node.Addr); ok {
			m.Address = netip.AddrPortFrom(a.Unmap(), k.node.Port)
		}
		if about, err := readMeta(k.node.Meta); err == nil {
			m.Program, m.Trust, m.Speaks = about.Version, hex.EncodeToString(about.Trust), int(k.node.DMax)
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Member) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// NotifyJoin is called by memberlist.
func (g *Cluster) NotifyJoin(n *memberlist.Node) { g.note(n, Alive) }

// NotifyUpdate is called by memberlist.
func (g *Cluster) NotifyUpdate(n *memberlist.Node) { g.note(n, Alive) }

// NotifyLeave is called by memberlist, for nodes that died too.
func (g *Cluster) NotifyLeave(n *memberlist.Node) {
	// memberlist does not tell who left from who died.
	if m, err := readMeta(n.Meta); err == nil && m.Leaving && !m.Last.Before(g.State.Version(n.Name, Endpoints)) {
		g.note(n, Left)
		g.State.Forget(n.Name)
		return
	}
	g.note(n, Dead)
}

func (g *Cluster) note(n *memberlist.Node, s Status) {
	g.mu.Lock()
	defer g.mu.Unlock()
	copied := *n
	k := g.nodes[n.Name]
	if k == nil {
		k = &known{}
		g.nodes[n.Name] = k
	}
	g.count(n.Name, k, -1)
	if s == Alive && n.Name != g.config.Node {
		k.meta = copied.Meta
	}
	if k.status != s {
		if s == Dead {
			select {
			case g.kick <- struct{}{}:
			default:
			}
		}
		k.status, k.since = s, g.config.Now()
		g.log.Info("member", "node", n.Name, "is", s, "address", n.Address())
	}
	k.node = &copied
	g.count(n.Name, k, 1)
	g.counted()
}

// heard notes that a node sent something.
func (g *Cluster) heard(node string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if k := g.nodes[node]; k != nil {
		k.heard = g.config.Now()
	}
}

// reap forgets nodes that are gone for good.
func (g *Cluster) reap() {
	g.State.Expire()
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, k := range g.nodes {
		gone := g.config.Now().Sub(k.since)
		if k.status == Left && gone > time.Minute || k.status == Dead && gone > deadForgotten {
			delete(g.nodes, name)
			g.State.Forget(name)
		}
	}
}

// member gives a node to send to; nil: it is none.
func (g *Cluster) member(node string) *memberlist.Node {
	g.mu.Lock()
	defer g.mu.Unlock()
	if k := g.nodes[node]; k != nil && k.status == Alive {
		return k.node
	}
	return nil
}

// anyone gives a random other member; nil: there is none.
func (g *Cluster) anyone() *memberlist.Node {
	g.mu.Lock()
	defer g.mu.Unlock()
	var chosen *memberlist.Node
	n := 0
	for name, k := range g.nodes {
		if name != g.config.Node && k.status == Alive {
			if n++; rand.IntN(n) == 0 {
				chosen = k.node
			}
		}
	}
	return chosen
}

// count takes a living node in, or out.
func (g *Cluster) count(name string, k *known, by int) {
	if name == g.config.Node || k.status != Alive {
		return
	}
	if g.living[k.node.DMax] += by; g.living[k.node.DMax] == 0 {
		delete(g.living, k.node.DMax)
	}
}

// counted tells what the counts come to.
func (g *Cluster) counted() {
	n, common := 1, g.config.protocol
	for version, nodes := range g.living {
		n += nodes
		common = min(common, version)
	}
	g.alive.Store(int64(n))
	if was := g.common.Swap(int32(common)); was != int32(common) {
		g.log.Info("protocol of the cluster", "version", common, "before", was)
	}
}

// remember takes those that it has stored books of for dead until they are heard: so that they are waited
// for as long as any dead node, and no longer.
func (g *Cluster) remember() {
	for _, name := range g.State.Owners() {
		if name != g.config.Node {
			g.nodes[name] = &known{node: &memberlist.Node{Name: name}, status: Dead, since: g.config.Now()}
		}
	}
}

// knowsMeta says whether that is what a member has shown before.
func (g *Cluster) knowsMeta(node string, b []byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	k := g.nodes[node]
	return k != nil && len(k.meta) > 0 && bytes.Equal(k.meta, b)
}

// room says whether one more node can be known; whoever is gone longest makes room.
func (g *Cluster) room(node string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.nodes[node] != nil || len(g.nodes) < maxNodes {
		return nil
	}
	longest := ""
	for name, k := range g.nodes {
		if k.status != Alive && (longest == "" || k.since.Before(g.nodes[longest].since)) {
			longest = name
		}
	}
	if longest == "" {
		return fmt.Errorf("%d living members: %w", len(g.nodes), errFull)
	}
	delete(g.nodes, longest)
	g.State.Forget(longest)
	return nil
}
