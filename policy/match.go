package policy

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// manner is how a peer matched: it decides what a Service's address means (see vip.go).
type manner uint8

const (
	no        manner = iota
	byAddress        // by a block, as part of the world, or since everybody is meant
	byName           // as a known workload, the node, or a resolver
)

// ask is one question to the rules: may subject, whose side is judged, talk with other.
type ask struct {
	view     *identity.View
	dir      Direction
	subject  *identity.Workload
	other    identity.Peer
	protocol identity.Protocol
	port     uint16
	names    []string // DNS names of the other end
}

// match says whether and how the rule allows it. "The traffic must match both ports and from."
func (r *rule) match(q *ask) manner {
	if !r.matchPorts(q) {
		return no
	}
	return r.matchPeers(q)
}

// matchPeers: "Items in this list are combined using a logical OR operation. If this field is empty
// or missing, this rule matches all sources (traffic not restricted by source)."
func (r *rule) matchPeers(q *ask) manner {
	if len(r.peers) == 0 {
		return byAddress
	}
	best := no
	for i := range r.peers {
		best = max(best, r.peers[i].match(q))
	}
	return best
}

// matchPorts: "Each item in this list is combined using a logical OR. If this field is empty or
// missing, this rule matches all ports (traffic not restricted by port). If this field is present
// and contains at least one item, then this rule allows traffic only if the traffic matches at
// least one port in the list." A rule with ports thus admits no other protocol, ICMP included.
func (r *rule) matchPorts(q *ask) bool {
	return len(r.ports) == 0 || slices.ContainsFunc(r.ports, func(p ports) bool { return p.match(q) })
}

// match: "If present, only traffic on the specified protocol AND port will be matched. If this
// field is not provided, this matches all port names and numbers." A name is that of a container
// port of the server: "a numerical or named port on a pod".
func (p *ports) match(q *ask) bool {
	if p.protocol != q.protocol || !sameFamily(p.protocol, q.other.Addr) {
		return false
	}
	if p.name == "" {
		return p.low <= q.port && q.port <= p.high
	}
	server := q.subject
	if q.dir == Egress {
		server = q.other.Workload
	}
	return named(server, p.name, p.protocol, q.port)
}

// named says whether a workload declares the port under that name.
func named(w *identity.Workload, name string, protocol identity.Protocol, port uint16) bool {
	if w == nil || w.HostNetwork {
		return false
	}
	return slices.ContainsFunc(w.Ports, func(c identity.ContainerPort) bool {
		return c.Name == name && c.Protocol == protocol && c.Port == port
	})
}

// sameFamily: ICMP is IPv4's, ICMPv6 is IPv6's; an address that is not known fits both.
func sameFamily(p identity.Protocol, a netip.Addr) bool {
	switch {
	case !a.IsValid():
		return true
	case p == identity.ICMP:
		return a.Is4()
	case p == identity.ICMPv6:
		return a.Is6()
	}
	return true
}

func (p *peer) match(q *ask) manner {
	switch {
	case p.selects:
		return p.matchPod(q)
	case p.network != "":
		return matchNetwork(q, p.network)
	case p.dnsName != "":
		return p.matchName(q)
	case p.service != nil:
		return p.matchService(q)
	case p.nodes != nil:
		return p.matchNode(q)
	}
	return p.matchBlock(q.other.Addr)
}

// matchName holds a DNS name, or "*.domain", against the names under which the client knows the server.
// "Wildcards … match one or more subdomains (labels)" and not the domain itself.
func (p *peer) matchName(q *ask) manner {
	if slices.ContainsFunc(q.names, func(name string) bool { return MatchesName(p.dnsName, name) }) {
		return byAddress
	}
	return no
}

// MatchesName says whether a DNS name (lower case, no last dot) is the one that a pattern writes, or lies
// below the domain of a pattern "*.domain".
func MatchesName(pattern, name string) bool {
	if domain, wild := strings.CutPrefix(pattern, "*"); wild {
		return strings.HasSuffix(name, domain) && len(name) > len(domain)
	}
	return pattern == name
}

// matchService: the workloads behind the Service, by whatever address they are reached.
func (p *peer) matchService(q *ask) manner {
	w := q.other.Workload
	if w == nil || w.HostNetwork {
		return no
	}
	if slices.Contains(q.view.Behind(p.service.Namespace, p.service.Name), w) {
		return byName
	}
	return no
}

// matchNode: "Nodes … selects a set of nodes in the cluster", by their addresses.
func (p *peer) matchNode(q *ask) manner {
	if _, found := slices.BinarySearchFunc(q.view.NodesWith(p.nodes.matches), q.other.Addr, netip.Addr.Compare); found {
		return byName
	}
	return no
}

// matchPod: "If namespaceSelector is also set, then the NetworkPolicyPeer as a whole selects the
// pods matching podSelector in the Namespaces selected by NamespaceSelector. Otherwise it selects
// the pods matching podSelector in the policy's own namespace."
func (p *peer) matchPod(q *ask) manner {
	if p.selected(q.other.Workload) {
		return byName
	}
	if p.wholeCluster() && inBlocks(q.view.Cluster(), q.other.Addr) {
		return byAddress
	}
	return no
}

func (p *peer) selected(w *identity.Workload) bool {
	if w == nil || w.HostNetwork || p.pods != nil && !p.pods.matches(w.Labels) {
		return false
	}
	if p.spaces == nil {
		return w.Namespace == p.own
	}
	return p.spaces.matches(w.NamespaceLabels)
}

// wholeCluster: the peer is every pod of every namespace. It then means the cluster's pod blocks,
// where the configuration gives them: a pod that comes later would be admitted too, and one block
// takes the place of an element for each.
func (p *peer) wholeCluster() bool {
	return p.selects && p.spaces != nil && p.spaces.empty() && (p.pods == nil || p.pods.empty())
}

// matchBlock: an address in the block is admitted, whoever has it, a pod too: the block says so.
// (Engines differ there; this is the reading that the words have.)
func (p *peer) matchBlock(a netip.Addr) manner {
	if !p.block.Contains(a) {
		return no
	}
	for _, e := range p.except {
		if e.Contains(a) {
			return no
		}
	}
	return byAddress
}

// matchNetwork is the native kind's peer by name.
func matchNetwork(q *ask, name string) manner {
	a := q.other.Addr
	switch name {
	case NetworkNode:
		if fromNode(q) {
			return byName
		}
	case NetworkDNS:
		if isResolver(q) {
			return byName
		}
	case NetworkCluster:
		if w := q.other.Workload; w != nil && !w.HostNetwork {
			return byName
		}
		if inBlocks(q.view.Cluster(), a) {
			return byAddress
		}
	case NetworkWorld:
		if inBlocks(q.view.World(), a) {
			return byAddress
		}
	default:
		if inBlocks(q.view.Networks[name], a) {
			return byAddress
		}
	}
	return no
}

// fromNode says whether the other end is the node that the subject runs on, by one of its addresses
// or through a workload in its network namespace.
func fromNode(q *ask) bool {
	if q.other.Kind == identity.Node && !q.other.Addr.IsValid() {
		return q.view.IsHere(q.subject)
	}
	return slices.Contains(q.view.NodeOf(q.subject), q.other.Addr)
}

func isResolver(q *ask) bool {
	if !q.other.Addr.IsValid() {
		return q.other.Kind == identity.Resolver
	}
	_, found := slices.BinarySearchFunc(q.view.Resolvers, q.other.Addr, netip.Addr.Compare)
	return found
}

func inBlocks(blocks []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(blocks, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Rules that hold without being written, in [SideDecision] and [Entry].
const (
	BuiltInNode = "built-in node" // the node may talk to its own workloads
	BuiltInDNS  = "built-in dns"  // workloads may ask their resolvers, UDP and TCP port 53
	BuiltInSelf = "built-in self" // a workload may talk to its own addresses
)

// dnsPort is RFC 1035's.
const dnsPort = 53

// alwaysAllowed gives the built-in rule that nothing written can change, or "".
//
// "Traffic is allowed to a pod if … OR if the traffic source is the pod's local node".
func alwaysAllowed(q *ask) string {
	switch {
	case q.other.Workload != nil && q.other.Workload.ID == q.subject.ID,
		q.other.Addr.IsValid() && slices.Contains(q.subject.Addrs, q.other.Addr):
		return BuiltInSelf
	case q.dir == Ingress && !q.view.NoNode && fromNode(q):
		return BuiltInNode
	}
	return ""
}

// isDNS says whether an isolated workload asks one of its resolvers, which it may where nothing written
// denies it.
func isDNS(q *ask) bool {
	return q.dir == Egress && !q.view.NoDNS && q.port == dnsPort &&
		(q.protocol == identity.UDP || q.protocol == identity.TCP) && isResolver(q)
}
