package daemon

import (
	"net/netip"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

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
