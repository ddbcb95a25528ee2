package policy

import (
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// Entries compiles what policies say of one workload to what its namespace must hold, against the
// workloads, Services and blocks of the view. It agrees with [Set.Evaluate] for every address,
// protocol and port; the built-in rules are part of it, but for a workload's traffic with itself,
// which no namespace judges.
func (s *Set) Entries(v *identity.View, w *identity.Workload) Sides {
	return Sides{Egress: s.entries(v, w, Egress), Ingress: s.entries(v, w, Ingress)}
}

func (s *Set) entries(v *identity.View, w *identity.Workload, d Direction) Side {
	policies := s.selecting(w, d)
	if len(policies) == 0 {
		return Side{}
	}
	b := &builder{view: v, subject: w, dir: d}
	b.builtIn()
	for _, c := range policies {
		h := c.half(d)
		for i := range h.rules {
			b.rule(&h.rules[i])
		}
	}
	if d == Egress {
		b.virtual(side{dir: d, policies: policies})
	}
	return Side{Isolated: true, Entries: compact(b.raw)}
}

// piece is an entry as a rule gives it, before the pieces of all rules are made disjoint.
type piece struct {
	Entry
	how manner
}

// builder gathers one side's pieces.
type builder struct {
	view    *identity.View
	subject *identity.Workload
	dir     Direction
	raw     []piece
}

func (b *builder) add(p netip.Prefix, ports ports, rule string, how manner) {
	if !sameFamily(ports.protocol, p.Addr()) {
		return
	}
	e := Entry{Peer: p, Protocol: ports.protocol, Port: ports.low, EndPort: ports.high, Rule: rule}
	if e.Protocol == identity.AnyProtocol {
		e.Port, e.EndPort = 0, 0
	}
	b.raw = append(b.raw, piece{e, how})
}

// everyPort is what a rule without ports allows.
var everyPort = ports{protocol: identity.AnyProtocol}

func (b *builder) builtIn() {
	if b.dir == Ingress {
		for _, a := range b.view.NodeOf(b.subject) {
			b.add(identity.Single(a), everyPort, BuiltInNode, byName)
		}
		return
	}
	for _, a := range b.view.Resolvers {
		for _, p := range []identity.Protocol{identity.TCP, identity.UDP} {
			b.add(identity.Single(a), ports{protocol: p, low: dnsPort, high: dnsPort}, BuiltInDNS, byName)
		}
	}
}

// rule adds what one rule allows: its peers, each with its ports.
func (b *builder) rule(r *rule) {
	if len(r.peers) == 0 {
		b.blocks(identity.Everything, r)
		return
	}
	for i := range r.peers {
		b.peer(&r.peers[i], r)
	}
}

func (b *builder) peer(p *peer, r *rule) {
	switch {
	case p.selects && p.wholeCluster():
		b.blocks(b.view.Cluster(), r)
		b.pods(p, r)
	case p.selects:
		b.pods(p, r)
	case p.network != "":
		b.network(p.network, r)
	default:
		b.blocks(p.pieces, r)
	}
}

func (b *builder) network(name string, r *rule) {
	switch name {
	case NetworkNode:
		b.addresses(b.view.NodeOf(b.subject), r)
	case NetworkDNS:
		b.addresses(b.view.Resolvers, r)
	case NetworkCluster:
		b.blocks(b.view.Cluster(), r)
		b.pods(&peer{selects: true, spaces: &selector{}}, r)
	case NetworkWorld:
		b.blocks(b.view.World(), r)
	default:
		b.blocks(b.view.Networks[name], r)
	}
}

// pods adds every known workload that the peer selects.
func (b *builder) pods(p *peer, r *rule) {
	for _, w := range p.candidates(b.view) {
		if len(w.Addrs) > 0 && w != b.subject && w.ID != b.subject.ID && p.selected(w) {
			for _, a := range w.Addrs {
				b.single(a, w, r, byName)
			}
		}
	}
}

// candidates is a short list of workloads with all that the peer selects in it.
func (p *peer) candidates(v *identity.View) []*identity.Workload {
	best := v.Workloads
	if p.spaces == nil {
		best = v.In(p.own)
	}
	if p.pods == nil {
		return best
	}
	for i := range p.pods.terms {
		if t := &p.pods.terms[i]; t.op == metav1.LabelSelectorOpIn && len(t.values) == 1 {
			if list := v.Labelled(t.key, t.values[0]); len(list) < len(best) {
				best = list
			}
		}
	}
	return best
}

// addresses adds addresses that are named rather than written; a workload that owns one counts for
// named ports.
func (b *builder) addresses(addrs []netip.Addr, r *rule) {
	for _, a := range addrs {
		b.single(a, b.view.ByAddr[a], r, byName)
	}
}

// single adds one address with the rule's ports; w owns it, or nobody known (nil).
func (b *builder) single(a netip.Addr, w *identity.Workload, r *rule, how manner) {
	p := identity.Single(a)
	if len(r.ports) == 0 {
		b.add(p, everyPort, r.name, how)
	}
	for _, x := range r.ports {
		if x.name == "" {
			b.add(p, x, r.name, how)
			continue
		}
		server := b.subject
		if b.dir == Egress {
			server = w
		}
		b.namedPort(p, server, x, r, how)
	}
}

// namedPort adds the numbers that the server declares under the name.
func (b *builder) namedPort(p netip.Prefix, server *identity.Workload, x ports, r *rule, how manner) {
	if server == nil || server.HostNetwork {
		return
	}
	for _, c := range server.Ports {
		if c.Name == x.name && c.Protocol == x.protocol {
			b.add(p, ports{protocol: x.protocol, low: c.Port, high: c.Port}, r.name, how)
		}
	}
}

// blocks adds blocks with the rule's ports. At egress a port's name has a number only where a known
// workload declares it, so it is resolved for every known workload inside of them.
func (b *builder) blocks(blocks []netip.Prefix, r *rule) {
	namesAtPeer := false
	for _, x := range r.ports {
		namesAtPeer = namesAtPeer || x.name != "" && b.dir == Egress
	}
	for _, p := range blocks {
		if len(r.ports) == 0 {
			b.add(p, everyPort, r.name, byAddress)
		}
		for _, x := range r.ports {
			switch {
			case x.name == "":
				b.add(p, x, r.name, byAddress)
			case b.dir == Ingress:
				b.namedPort(p, b.subject, x, r, byAddress)
			}
		}
	}
	if !namesAtPeer {
		return
	}
	for _, w := range b.view.Workloads {
		for _, a := range w.Addrs {
			if w.HostNetwork || w.ID == b.subject.ID || !inBlocks(blocks, a) {
				continue
			}
			for _, x := range r.ports {
				if x.name != "" {
					b.namedPort(identity.Single(a), w, x, r, byName)
				}
			}
		}
	}
}
