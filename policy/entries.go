package policy

import (
	"net/netip"
	"slices"

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
	if w == nil || w.HostNetwork {
		return Side{}
	}
	l := s.lineup(w, d)
	if l.silent {
		return Side{}
	}
	return compileSide(v, w, &l).Side
}

// gather collects the pieces of all rules.
func (b *builder) gather(l *lineup) {
	b.builtIn(l)
	l.each(func(r *rule, admin bool, rank int32) {
		b.rule(r, standing{rank: rank, admin: admin, action: r.action, rule: r.name})
	})
}

// standing is where a piece stands among those that meet it, and what it does.
type standing struct {
	rank   int32 // lower is asked first
	admin  bool  // in the admin tier, which is asked before all others
	action Action
	rule   string
}

// piece is what a rule says of a block and a range of ports.
type piece struct {
	peer      netip.Prefix
	protocol  identity.Protocol // AnyProtocol: every protocol and port
	low, high uint16
	how       manner
	standing
}

func (p *piece) covers(protocol identity.Protocol, port uint16) bool {
	return p.protocol == identity.AnyProtocol || p.protocol == protocol && p.low <= port && port <= p.high
}

// builder gathers one side's pieces.
type builder struct {
	view    *identity.View
	subject *identity.Workload
	dir     Direction
	only    netip.Addr // where valid: pieces of this address alone, and no names
	at      standing   // of the rule at hand
	raw     []piece
	names   []namePiece
}

// namePiece is what a rule says of a DNS name.
type namePiece struct {
	NameEntry
	standing
}

func (b *builder) add(p netip.Prefix, ports ports, how manner) {
	if b.only.IsValid() && (!p.IsSingleIP() || p.Addr() != b.only) {
		return
	}
	if sameFamily(ports.protocol, p.Addr()) {
		b.raw = append(b.raw, piece{p, ports.protocol, ports.low, ports.high, how, b.at})
	}
}

// everyPort is what a rule without ports is about.
var everyPort = ports{protocol: identity.AnyProtocol, high: 65535}

func (b *builder) builtIn(l *lineup) {
	switch {
	case b.dir == Ingress && !b.view.NoNode:
		b.at = standing{rank: rankNode, admin: true, rule: BuiltInNode}
		for _, a := range b.view.NodeOf(b.subject) {
			b.add(identity.Single(a), everyPort, byName)
		}
	case b.dir == Egress && !b.view.NoDNS && l.isolated():
		b.at = standing{rank: l.dnsRank(), rule: BuiltInDNS}
		for _, a := range b.view.Resolvers {
			for _, p := range []identity.Protocol{identity.TCP, identity.UDP} {
				b.add(identity.Single(a), ports{protocol: p, low: dnsPort, high: dnsPort}, byName)
			}
		}
	}
}

// rule adds what one rule says: of its peers, each with its ports.
func (b *builder) rule(r *rule, at standing) {
	b.at = at
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
	case p.dnsName != "":
		b.name(p.dnsName, r)
	case p.service != nil:
		b.service(p.service, r)
	case p.nodes != nil:
		b.addresses(b.view.NodesWith(p.nodes.matches), r)
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

// name adds a DNS name. A port's name has no number there: nobody declares it.
func (b *builder) name(pattern string, r *rule) {
	if b.only.IsValid() {
		return
	}
	if len(r.ports) == 0 {
		b.names = append(b.names, namePiece{NameEntry{Name: pattern, Rule: r.name}, b.at})
	}
	for _, x := range r.ports {
		if x.name == "" {
			b.names = append(b.names, namePiece{NameEntry{pattern, x.protocol, x.low, x.high, r.name}, b.at})
		}
	}
}

// pods adds every known workload that the peer selects.
func (b *builder) pods(p *peer, r *rule) {
	for _, w := range b.candidates(p) {
		if len(w.Addrs) > 0 && w.ID != b.subject.ID && p.selected(w) {
			b.workload(w, r)
		}
	}
}

// service adds every workload behind a Service.
func (b *builder) service(s *ServiceRef, r *rule) {
	list := b.view.Behind(s.Namespace, s.Name)
	if b.only.IsValid() {
		list = slices.DeleteFunc(b.owner(), func(w *identity.Workload) bool { return !b.view.IsBehind(s.Namespace, s.Name, w) })
	}
	for _, w := range list {
		if w.ID != b.subject.ID && !w.HostNetwork {
			b.workload(w, r)
		}
	}
}

func (b *builder) workload(w *identity.Workload, r *rule) {
	for _, a := range w.Addrs {
		b.single(a, w, r, byName)
	}
}

// owner lists the workload that has the one address that is asked for.
func (b *builder) owner() []*identity.Workload {
	if w := b.view.Owner(b.only); w != nil {
		return []*identity.Workload{w}
	}
	return nil
}

func (b *builder) candidates(p *peer) []*identity.Workload {
	if b.only.IsValid() {
		return b.owner()
	}
	return p.candidates(b.view)
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
		if b.only.IsValid() && a != b.only {
			continue
		}
		b.single(a, b.view.Owner(a), r, byName)
	}
}

// single adds one address with the rule's ports; w owns it, or nobody known (nil).
func (b *builder) single(a netip.Addr, w *identity.Workload, r *rule, how manner) {
	p := identity.Single(a)
	if len(r.ports) == 0 {
		b.add(p, everyPort, how)
	}
	for _, x := range r.ports {
		if x.name == "" {
			b.add(p, x, how)
			continue
		}
		server := b.subject
		if b.dir == Egress {
			server = w
		}
		b.namedPort(p, server, x, how)
	}
}

// namedPort adds the numbers that the server declares under the name.
func (b *builder) namedPort(p netip.Prefix, server *identity.Workload, x ports, how manner) {
	if server == nil || server.HostNetwork {
		return
	}
	for _, c := range server.Ports {
		if c.Name == x.name && c.Protocol == x.protocol {
			b.add(p, ports{protocol: x.protocol, low: c.Port, high: c.Port}, how)
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
			b.add(p, everyPort, byAddress)
		}
		for _, x := range r.ports {
			switch {
			case x.name == "":
				b.add(p, x, byAddress)
			case b.dir == Ingress:
				b.namedPort(p, b.subject, x, byAddress)
			}
		}
	}
	if !namesAtPeer {
		return
	}
	all := b.view.Workloads
	if b.only.IsValid() {
		all = b.owner()
	}
	for _, w := range all {
		for _, a := range w.Addrs {
			if w.HostNetwork || w.ID == b.subject.ID || !inBlocks(blocks, a) {
				continue
			}
			for _, x := range r.ports {
				if x.name != "" {
					b.namedPort(identity.Single(a), w, x, byName)
				}
			}
		}
	}
}
