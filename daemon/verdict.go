package daemon

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// maxPairs bounds the (client, server) workloads tried for one edge.
const maxPairs = 64

// sideVerdict is what an end's mode makes of what policy says of that end.
func sideVerdict(s policy.SideDecision, m policy.Mode) policy.Verdict {
	switch {
	case s.Verdict == policy.Allow || m == policy.Learn:
		return policy.Allow
	case m == policy.AlertMode:
		return policy.Alert
	}
	return policy.Deny
}

// outcome is what happens to a packet: policy and the modes of both ends; the stricter end wins.
func outcome(d policy.Decision, client, server policy.Mode) policy.Verdict {
	return min(sideVerdict(d.Egress, client), sideVerdict(d.Ingress, server))
}

// world is one state of policies and modes, to be compared with another.
type world struct {
	set   *policy.Set
	modes *modes
}

// judged is what a world makes of an edge: the strictest over the workloads that were seen at its
// ends.
type judged struct {
	policy  policy.Verdict // whatever the modes
	outcome policy.Verdict
	reason  string // of the strictest
}

func (o world) judge(view *identity.View, e *flow.Edge) judged {
	clients := peersOf(view, e.Client, e.Clients)
	servers := peersOf(view, e.Server, e.Servers)
	out := judged{policy: policy.Allow, outcome: policy.Allow}
	tried := 0
	for _, c := range clients {
		for _, s := range servers {
			if tried++; tried > maxPairs {
				return out
			}
			d := o.set.Evaluate(view, policy.Connection{Client: c, Server: s, Protocol: e.Protocol, Port: e.Port})
			got := outcome(d, o.modes.modeOf(c), o.modes.modeOf(s))
			if d.Verdict < out.policy || got < out.outcome {
				out.reason = whyNot(d)
			}
			out.policy, out.outcome = min(out.policy, d.Verdict), min(out.outcome, got)
		}
	}
	return out
}

// whyNot is the sentence of the side that denies.
func whyNot(d policy.Decision) string {
	if d.Egress.Verdict != policy.Allow {
		return d.Egress.Reason
	}
	return d.Ingress.Reason
}

// peersOf gives the workloads that were seen at one end of an edge and are still there, else all of
// the service; for other ends an address that stands for them.
func peersOf(view *identity.View, end flow.End, seen flow.Earliest[flow.Member]) []identity.Peer {
	switch end.Kind {
	case identity.Pod:
		var out []identity.Peer
		for _, m := range seen.Items {
			if w := view.Find(m.What.Namespace, m.What.Name); w != nil && w.Service == end.Service {
				out = append(out, podPeer(w))
			}
		}
		if len(out) > 0 {
			return out
		}
		return servicePeers(view, end.Service)
	case identity.Node:
		return addrPeers(identity.Peer{Kind: identity.Node}, view.NodeAddrs)
	case identity.Resolver:
		return addrPeers(identity.Peer{Kind: identity.Resolver}, view.Resolvers)
	case identity.Network:
		if p := view.Networks[end.Name]; len(p) > 0 {
			return []identity.Peer{{Kind: identity.Network, Network: end.Name, Addr: p[0].Addr()}}
		}
		return nil
	case identity.VIP:
		return addrPeers(identity.Peer{Kind: identity.VIP, Network: end.Name}, sortedVIPs(view, end.Name))
	}
	addr := end.Addr
	if !addr.IsValid() { // many addresses of the world, kept as one: one that is nobody's stands for them
		addr = someWorld
	}
	return []identity.Peer{{Kind: identity.World, Addr: addr}}
}

// someWorld is an address of the world that nobody has (RFC 5737).
var someWorld = netip.MustParseAddr("203.0.113.1")

func podPeer(w *identity.Workload) identity.Peer {
	p := identity.Peer{Kind: identity.Pod, Workload: w}
	if len(w.Addrs) > 0 {
		p.Addr = w.Addrs[0]
	}
	return p
}

func servicePeers(view *identity.View, s identity.Service) []identity.Peer {
	var out []identity.Peer
	for _, w := range view.In(s.Namespace) {
		if w.Service == s && (len(w.Addrs) > 0 || w.Local) {
			out = append(out, podPeer(w))
		}
	}
	return out
}

// addrPeers takes the first address: which of the node's or the resolvers' it is changes nothing
// that policy can say.
func addrPeers(p identity.Peer, addrs []netip.Addr) []identity.Peer {
	if len(addrs) == 0 {
		return nil
	}
	p.Addr = addrs[0]
	return []identity.Peer{p}
}

func sortedVIPs(view *identity.View, name string) []netip.Addr {
	var out []netip.Addr
	for a, n := range view.VIPNames {
		if n == name {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// compare evaluates the seen edges under what is in force and under a plan. An edge breaks when it
// would be denied in fact, or when the new policies deny what the old ones allow, in whatever mode
// its services are: they are meant to be enforced one day.
func (d *Daemon) compare(p *plan) api.Preview {
	out := api.Preview{Breaks: []api.PreviewRow{}, Opens: []api.PreviewRow{}}
	view := d.index.View()
	now := world{p.before.set, p.fit}
	next := world{p.rules.set, p.modes}
	for _, e := range d.graph.Edges() {
		was, will := now.judge(view, &e), next.judge(view, &e)
		row := api.PreviewRow{Edge: edgeRow(&e), Reason: will.reason}
		switch {
		case e.Allowed() && (was.policy == policy.Allow && will.policy == policy.Deny || was.outcome != policy.Deny && will.outcome == policy.Deny):
			out.Breaks = append(out.Breaks, row)
		case was.policy == policy.Deny && will.policy == policy.Allow, was.outcome == policy.Deny && will.outcome != policy.Deny:
			if row.Reason == "" {
				row.Reason = fmt.Sprintf("denied until now: %s", was.reason)
			}
			out.Opens = append(out.Opens, row)
		}
	}
	return out
}
