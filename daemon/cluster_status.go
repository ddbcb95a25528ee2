package daemon

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/gossip"
)

// positionWait bounds how long status waits for other nodes.
const positionWait = 2 * time.Second

// position is where a node stands: what it holds of everybody, and what is in force there.
type position struct {
	_          struct{} `cbor:",toarray"`
	Registers  string
	Books      map[string][]uint64 // by owner: epoch and number of its endpoints
	Generation uint64
}

// onPosition answers where this node stands.
func (c *cluster) onPosition(context.Context, string, []byte) ([]byte, error) {
	return askEncoder.Marshal(c.position())
}

func (c *cluster) position() position {
	p := position{Registers: c.State.RegistersHash(), Books: map[string][]uint64{}, Generation: c.d.generation.Load()}
	for _, h := range c.State.Heads() {
		if h.Kind == gossip.Endpoints {
			p.Books[h.Owner] = []uint64{h.Version.Epoch, h.Version.Seq}
		}
	}
	return p
}

// behind is how many changes another position lacks that p has.
func (p *position) behind(o *position) (n uint64) {
	for owner, mine := range p.Books {
		theirs := o.Books[owner]
		switch {
		case len(mine) != 2:
		case len(theirs) != 2, mine[0] > theirs[0]:
			n += max(mine[1], 1)
		case mine[0] == theirs[0] && mine[1] > theirs[1]:
			n += mine[1] - theirs[1]
		}
	}
	return n
}

// ClusterStatus is the cluster as this node sees it, having asked every living member.
func (d *Daemon) ClusterStatus(ctx context.Context) (api.ClusterStatus, error) {
	c := d.cluster
	if c == nil {
		return api.ClusterStatus{}, errAlone
	}
	ctx, cancel := context.WithTimeout(ctx, positionWait)
	defer cancel()
	out := api.ClusterStatus{
		Name: c.cfg.Name, Node: d.cfg.Node, Fingerprint: fingerprint(c.State.KeyOf(d.cfg.Node)), Encrypted: c.EncryptsWith(),
		Registers: c.State.RegistersHash(), Books: c.books(), Members: c.members(), Convergence: c.spans.row(), StartWait: c.starts.spans.row(),
		Counters: c.counters(),
	}
	c.mu.Lock()
	for _, id := range slices.SortedFunc(maps.Keys(c.refused), compareIDs) {
		r := c.refused[id]
		out.Refused = append(out.Refused, fmt.Sprintf("%s of node %s: %v", id.Key, r.node, r.err))
	}
	c.mu.Unlock()
	c.askPositions(ctx, out.Members)
	return out, nil
}

func fingerprint(key ed25519.PublicKey) string {
	if key == nil {
		return ""
	}
	return gossip.Fingerprint(key)
}

// books lists what this node holds, by owner and kind.
func (c *cluster) books() []api.ClusterBook {
	out := []api.ClusterBook{}
	for _, h := range c.State.Heads() {
		out = append(out, api.ClusterBook{Owner: h.Owner, Kind: h.Kind.String(), Version: fmt.Sprintf("%d.%d", h.Version.Epoch, h.Version.Seq),
			Entries: int(h.Count), Root: hex.EncodeToString(h.Root[:])})
	}
	return out
}

// members lists those that memberlist knows, and those whose endpoints are still here from before.
func (c *cluster) members() []api.ClusterMember {
	out := []api.ClusterMember{}
	seen := map[string]bool{}
	for _, m := range c.Members() {
		seen[m.Node] = true
		out = append(out, api.ClusterMember{Node: m.Node, Address: m.Address.String(), State: string(m.Status), Since: m.Since, Heard: m.Heard,
			Program: m.Program, Protocol: m.Speaks, Fingerprint: fingerprint(c.State.KeyOf(m.Node))})
	}
	for _, owner := range c.State.Owners() {
		if !seen[owner] {
			out = append(out, api.ClusterMember{Node: owner, State: string(gossip.Dead), Since: c.d.started, Fingerprint: fingerprint(c.State.KeyOf(owner)),
				Error: "not met since this daemon started"})
		}
	}
	entries := map[string]int{}
	for _, w := range c.d.index.View().Workloads {
		if w.Local {
			entries[c.d.cfg.Node]++
		} else {
			entries[w.Node]++
		}
	}
	for i := range out {
		out[i].Workloads = entries[out[i].Node]
	}
	slices.SortFunc(out, func(a, b api.ClusterMember) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// askPositions fills in where the living members stand.
func (c *cluster) askPositions(ctx context.Context, members []api.ClusterMember) {
	mine := c.position()
	atOnce(len(members), func(i int) {
		m := &members[i]
		switch {
		case m.Node == c.d.cfg.Node:
			m.Agrees, m.Generation, m.Heard = true, mine.Generation, c.d.now()
			return
		case m.State != string(gossip.Alive):
			return
		}
		raw, err := c.Ask(ctx, m.Node, "position", nil)
		var theirs position
		if err == nil {
			err = askDecoder.Unmarshal(raw, &theirs)
		}
		if err != nil {
			m.Error = err.Error()
			return
		}
		m.Behind, m.Ahead = mine.behind(&theirs), theirs.behind(&mine)
		m.Agrees, m.Generation = theirs.Registers == mine.Registers, theirs.Generation
	})
}

func (c *cluster) counters() api.ClusterCounters {
	n := c.Counts()
	return api.ClusterCounters{Refused: n.Refused.Load(), Overflow: n.Overflow.Load(), Unsent: n.Unsent.Load(),
		Starts: c.starts.total.Load(), Unheard: c.starts.unheard.Load()}
}

// ClusterForce asks all nodes which of this node's policies they have in force.
func (d *Daemon) ClusterForce(ctx context.Context) (api.ClusterForce, error) {
	c := d.cluster
	if c == nil {
		return api.ClusterForce{}, errAlone
	}
	ctx, cancel := context.WithTimeout(ctx, positionWait)
	defer cancel()
	var slots []slot
	var said []gossip.Record
	rb := d.rules.Load()
	for _, s := range rb.slots() {
		if rec, known := c.State.Look(classPolicy, s.store()); known && rb.held[s].from == sourceAPI {
			slots, said = append(slots, s), append(said, rec)
		}
	}
	out := api.ClusterForce{Generation: d.generation.Load(), Policies: map[string]api.PolicyForce{}}
	body, err := askEncoder.Marshal(&askForce{List: writesOf(said)})
	if err != nil {
		return out, err
	}
	nodes := append(append(c.others(gossip.Alive), c.others(gossip.Dead)...), d.cfg.Node)
	slices.Sort(nodes)
	out.Nodes = make([]api.NodeForce, len(nodes))
	answers := make([]forceAnswer, len(nodes))
	atOnce(len(nodes), func(i int) { out.Nodes[i], answers[i] = c.forceOf(ctx, nodes[i], body) })
	for k, s := range slots {
		f := api.PolicyForce{OfNodes: len(nodes)}
		for i := range nodes {
			if answers[i].known && !slices.Contains(answers[i].Lack, uint32(k)) {
				f.Nodes++
				f.Workloads += answers[i].Workloads
			}
		}
		out.Policies[s.String()] = f
	}
	return out, nil
}

// forceOf asks one node, or this one itself.
func (c *cluster) forceOf(ctx context.Context, node string, body []byte) (api.NodeForce, forceAnswer) {
	out := api.NodeForce{Node: node}
	ask := func() ([]byte, error) { return c.Ask(ctx, node, "force", body) }
	if node == c.d.cfg.Node {
		ask = func() ([]byte, error) { return c.onForce(ctx, node, body) }
	}
	raw, err := ask()
	var a forceAnswer
	if err == nil {
		err = askDecoder.Unmarshal(raw, &a)
	}
	if err != nil {
		out.Error = err.Error()
		return out, a
	}
	a.known = true
	out.InForce, out.Workloads, out.Of = len(a.Lack) == 0, a.Workloads, a.Of
	if !out.InForce {
		out.Error = cmp.Or(strings.Join(a.Refused[:min(3, len(a.Refused))], "; "), fmt.Sprintf("%d policies are not in force there yet", len(a.Lack)))
	}
	return out, a
}

// summary is the members in short; nil: this node is alone.
func (c *cluster) summary() *api.Members {
	if c == nil {
		return nil
	}
	return &api.Members{Name: c.cfg.Name, Alive: 1 + len(c.others(gossip.Alive)), Dead: c.others(gossip.Dead)}
}
