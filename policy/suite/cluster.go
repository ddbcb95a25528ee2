package suite

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Cluster is who is who, seen from every node. A connection's egress is judged on the client's node
// and its ingress on the server's, as the daemons there do: what is "the node", and what is the world,
// differs from one to the next. It is not safe for concurrent use.
type Cluster struct {
	view  *identity.View
	nodes map[string][]netip.Addr

	views    map[string]*identity.View // by node, made when first asked for
	nodeOf   map[netip.Addr]string
	pods     map[string]*identity.Workload // by namespace/name
	bare     map[string]*identity.Workload // by name alone
	services map[identity.Service][]*identity.Workload
	vips     map[string][]netip.Addr // by namespace/name of the Service
}

// NewCluster takes a picture of workloads, Services and nodes (View.Nodes). What it says of its own
// node counts for workloads without one, and for outsiders.
func NewCluster(view *identity.View) *Cluster {
	c := &Cluster{
		view: view, nodes: map[string][]netip.Addr{},
		views: map[string]*identity.View{}, nodeOf: map[netip.Addr]string{},
		pods: map[string]*identity.Workload{}, bare: map[string]*identity.Workload{},
		services: map[identity.Service][]*identity.Workload{}, vips: map[string][]netip.Addr{},
	}
	for name := range view.Nodes {
		c.nodes[name] = view.NodeOf(&identity.Workload{Node: name})
		for _, a := range c.nodes[name] {
			c.nodeOf[a] = name
		}
	}
	for _, w := range view.Workloads {
		name := w.Namespace + "/" + w.Name
		if c.pods[name] == nil || view.Find(w.Namespace, w.Name) == w {
			c.pods[name] = w
		}
		if c.bare[w.Name] == nil {
			c.bare[w.Name] = w
		}
		if len(w.Addrs) > 0 {
			c.services[w.Service] = append(c.services[w.Service], w)
		}
	}
	for a, name := range view.VIPNames {
		c.vips[name] = append(c.vips[name], a)
	}
	for _, addrs := range c.vips {
		slices.SortFunc(addrs, netip.Addr.Compare)
	}
	return c
}

// View is the picture as it was given.
func (c *Cluster) View() *identity.View { return c.view }

// on is the picture that a node's daemon has.
func (c *Cluster) on(node string) *identity.View {
	addrs := c.nodes[node]
	if len(addrs) == 0 || node == c.view.Node {
		return c.view
	}
	if v := c.views[node]; v != nil {
		return v
	}
	v := c.view.On(node, addrs)
	c.views[node] = v
	return v
}

// Member is one end of a connection: a workload, a node or an address.
type Member struct {
	Workload *identity.Workload // nil for others
	Node     string             // where it runs, or which it is; empty: not known
	Addrs    []netip.Addr       // that it may use; never empty
	VIP      bool               // a Service's address
}

// String names the member for people.
func (m Member) String() string {
	switch {
	case m.Workload != nil:
		return m.Workload.Namespace + "/" + m.Workload.Name
	case len(m.Addrs) > 0:
		return m.Addrs[0].String()
	}
	return "?"
}

// peer names the member's address as a view sees it.
func (m Member) peer(v *identity.View, a netip.Addr) identity.Peer {
	if m.Workload != nil {
		return identity.Peer{Kind: identity.Pod, Addr: a, Workload: m.Workload}
	}
	return v.Peer(a)
}

// Judge says what a set makes of a connection between two members. from and to are the addresses
// used, one of each member's (see [Family]).
func (c *Cluster) Judge(set *policy.Set, client, server Member, from, to netip.Addr, protocol identity.Protocol, port uint16) policy.Decision {
	here, there := c.on(client.Node), c.on(server.Node)
	if server.Workload == nil && server.Node == "" {
		there = here
	}
	if client.Workload == nil && client.Node == "" {
		here = there
	}
	ask := func(v *identity.View) policy.Decision {
		return set.Evaluate(v, policy.Connection{Client: client.peer(v, from), Server: server.peer(v, to), Protocol: protocol, Port: port})
	}
	d := ask(here)
	if side, judged := c.behind(set, client, from, identity.VIPKey{Addr: to, Protocol: protocol, Port: port}); server.VIP && judged {
		d.Ingress = side
	} else if here != there {
		d.Ingress = ask(there).Ingress
	}
	d.Verdict = min(d.Egress.Verdict, d.Ingress.Verdict)
	return d
}

// behind judges the ingress of a connection to a Service's address at every workload behind it, on the
// node of each: any of them may get it, so all must allow it. False: nobody is known behind it.
func (c *Cluster) behind(set *policy.Set, client Member, from netip.Addr, to identity.VIPKey) (out policy.SideDecision, judged bool) {
	for _, b := range c.view.Backends(to) {
		v := c.on(b.Workload.Node)
		for _, a := range b.Workload.Addrs {
			if a.Is4() != to.Addr.Is4() {
				continue
			}
			side := set.Evaluate(v, policy.Connection{
				Client: client.peer(v, from), Server: Member{Workload: b.Workload}.peer(v, a), Protocol: to.Protocol, Port: b.Port,
			}).Ingress
			side.Reason = fmt.Sprintf("behind service %s: %s", c.view.VIPNames[to.Addr], side.Reason)
			if side.Verdict != policy.Allow {
				return side, true
			}
			if !judged || side.Isolated && !out.Isolated {
				out, judged = side, true
			}
		}
	}
	return out, judged
}

// Family finds a pair of addresses of one family. Where both ends speak both, it is IPv4.
func Family(client, server Member) (from, to netip.Addr, ok bool) {
	for _, v4 := range []bool{true, false} {
		for _, a := range client.Addrs {
			for _, b := range server.Addrs {
				if a.Is4() == v4 && b.Is4() == v4 {
					return a, b, true
				}
			}
		}
	}
	return from, to, false
}

// Nodes lists the names of all nodes, sorted.
func (c *Cluster) Nodes() []string { return slices.Sorted(maps.Keys(c.nodes)) }

// Evaluate is policy.Set's on the views of the nodes that both ends are on.
func (c *Cluster) Evaluate(set *policy.Set, q policy.Connection) policy.Decision {
	here, there := c.on(c.nodeOfPeer(q.Client)), c.on(c.nodeOfPeer(q.Server))
	d := set.Evaluate(here, q)
	switch {
	case q.Server.Kind == identity.VIP:
		to := identity.VIPKey{Addr: q.Server.Addr, Protocol: q.Protocol, Port: q.Port}
		if side, judged := c.behind(set, Member{Workload: q.Client.Workload}, q.Client.Addr, to); judged {
			d.Ingress = side
		}
	case here != there:
		d.Ingress = set.Evaluate(there, q).Ingress
	}
	d.Verdict = min(d.Egress.Verdict, d.Ingress.Verdict)
	return d
}

func (c *Cluster) nodeOfPeer(p identity.Peer) string {
	if p.Workload != nil {
		return p.Workload.Node
	}
	return c.nodeOf[p.Addr]
}

// Service lists the workloads of a service that own an address.
func (c *Cluster) Service(s identity.Service) []Member { return members(c.services[s]) }

// Pod is a workload by "namespace/name"; false: not known, or it owns no address.
func (c *Cluster) Pod(name string) (Member, bool) {
	w := c.pods[name]
	if w == nil || len(w.Addrs) == 0 {
		return Member{}, false
	}
	return Member{Workload: w, Node: w.Node, Addrs: w.Addrs}, true
}

// Peer is the member by its first address, as its own node sees it.
func (c *Cluster) Peer(m Member) identity.Peer { return m.peer(c.on(m.Node), m.Addrs[0]) }
