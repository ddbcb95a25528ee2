package firewall

import (
	"net/netip"
	"slices"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// sideSets is what one side of one family puts in sets.
type sideSets struct {
	exact []Element // address . protocol . port
	every []Element // address
	nets  []Element // address . protocol . port, intervals
	icmp  []Element // address . type, intervals
}

// peerSets are the addresses that either side allows at all.
type peerSets struct {
	peers []Element
	nets  []Element
}

// packing collects keys in one buffer, so that ten thousand of them cost a few allocations.
type packing struct {
	buf  []byte
	ends []int
}

func (p *packing) addr(a netip.Addr) {
	if a.Is4() {
		b := a.As4()
		p.buf = append(p.buf, b[:]...)
		return
	}
	b := a.As16()
	p.buf = append(p.buf, b[:]...)
}

func (p *packing) proto(n uint8) { p.buf = append(p.buf, n, 0, 0, 0) }

func (p *packing) port(n uint16) { p.buf = append(p.buf, byte(n>>8), byte(n), 0, 0) }

func (p *packing) done() { p.ends = append(p.ends, len(p.buf)) }

// keys cuts the buffer and sorts: exact keys, or pairs of first and last for intervals.
func (p *packing) keys(interval bool) []Element {
	all, at := string(p.buf), 0
	if len(p.ends) == 0 {
		return nil
	}
	out := make([]Element, 0, len(p.ends))
	for i := 0; i < len(p.ends); i++ {
		e := Element{Key: all[at:p.ends[i]]}
		at = p.ends[i]
		if interval {
			i++
			e.End = all[at:p.ends[i]]
			at = p.ends[i]
		}
		out = append(out, e)
	}
	// Entries come sorted, so that there is mostly nothing to do.
	if !slices.IsSortedFunc(out, Element.compare) {
		sortElements(out)
	}
	return slices.Compact(out)
}

// sortSide sorts a side's entries of one family into its sets.
func sortSide(entries []policy.Entry, s site) sideSets {
	var exact, every, nets, icmp packing
	var blocks, types []box
	for _, e := range entries {
		if e.Peer.Addr().Is6() != s.v6 || !e.Peer.IsValid() {
			continue
		}
		switch {
		case e.Exact() && e.Protocol == identity.AnyProtocol:
			every.addr(e.Peer.Addr())
			every.done()
		case e.Exact():
			exact.addr(e.Peer.Addr())
			exact.proto(uint8(e.Protocol))
			exact.port(e.Port)
			exact.done()
		case e.EndProtocol != 0:
			b := boxOf(e.Peer, identity.AnyProtocol, 0, 65535)
			b.protoLo, b.protoHi = uint8(e.Protocol), uint8(e.EndProtocol)
			blocks = append(blocks, b)
		case e.Protocol == s.icmp() && e.Port <= 255:
			types = append(types, typeBox(e))
		case e.Protocol.IsICMP():
			// ICMP of the other family: no packet has it.
		default:
			blocks = append(blocks, boxOf(e.Peer, e.Protocol, e.Port, e.EndPort))
		}
	}
	for _, b := range disjoint(blocks) {
		nets.addr(b.lo)
		nets.proto(b.protoLo)
		nets.port(b.portLo)
		nets.done()
		nets.addr(b.hi)
		nets.proto(b.protoHi)
		nets.port(b.portHi)
		nets.done()
	}
	for _, b := range disjoint(types) {
		icmp.addr(b.lo)
		icmp.proto(uint8(b.portLo))
		icmp.done()
		icmp.addr(b.hi)
		icmp.proto(uint8(min(b.portHi, 255)))
		icmp.done()
	}
	return sideSets{exact.keys(false), every.keys(false), nets.keys(true), icmp.keys(true)}
}

// hasBlocks says whether entries put anything in the interval set of a family, see sortSide.
func hasBlocks(entries []policy.Entry, s site) bool {
	return slices.ContainsFunc(entries, func(e policy.Entry) bool {
		return e.Peer.IsValid() && e.Peer.Addr().Is6() == s.v6 && !e.Exact() && (e.EndProtocol != 0 || !e.Protocol.IsICMP())
	})
}

// typeBox is an ICMP entry as a box: its types are the ports, 0 to 65535 for all of them.
func typeBox(e policy.Entry) box {
	b := box{span: span{e.Peer.Masked().Addr(), lastOf(e.Peer)}, protoLo: 1, protoHi: 1, portLo: e.Port, portHi: e.EndPort}
	if b.portLo == 0 && b.portHi >= 255 {
		b.portHi = 65535
	}
	return b
}

// Timeouts of what the sets remember.
const (
	seenTime   = SeenTimeout * time.Second
	deniedTime = DeniedTimeout * time.Second
	answerTime = UDPTimeout * time.Second
	// synTime bounds how long a TCP birth is remembered that no other segment follows, servedTime how
	// long a connection may be silent and still be answered by a server that may open none itself.
	synTime    = time.Minute
	servedTime = 24 * time.Hour
)

func (s site) addrPart() Part {
	if s.v6 {
		return IPv6Addr
	}
	return IPv4Addr
}

// flowKey is peer . protocol . port.
func (s site) flowKey() Key { return Key{s.addrPart(), InetProto, InetService} }

func (s site) icmpKey() Key {
	if s.v6 {
		return Key{IPv6Addr, ICMPv6Type}
	}
	return Key{IPv4Addr, ICMPType}
}

// judged gives the static sets of a family: what both sides allow and deny, and the peers.
func (s site) judged(spec Spec, sides policy.Sides) []*Set {
	var out []*Set
	for _, side := range []struct {
		dir policy.Direction
		policy.Side
	}{{policy.Egress, sides.Egress}, {policy.Ingress, sides.Ingress}} {
		n := side.dir.String() + s.digit()
		e := sortSide(side.Entries, s)
		out = append(out,
			&Set{Name: n, Key: s.flowKey(), Elements: e.exact},
			&Set{Name: n + "_any", Key: Key{s.addrPart()}, Elements: e.every, Comment: "every protocol and port"},
			&Set{Name: n + "_nets", Key: s.flowKey(), Interval: true, Elements: e.nets},
			&Set{Name: n + "_icmp", Key: s.icmpKey(), Interval: true, Elements: e.icmp})
		if has := spec.denies(side.dir, s.v6); has != 0 {
			out = append(out, s.denied(side.dir, has, side.Denied)...)
		}
	}
	if spec.names() {
		out = append(out, s.nameSets()...)
	}
	return append(out, s.fragmentSets(spec, sides)...)
}

// served remembers (peer, protocol, own port) of what came in, for the answers to it.
func (s site) served() *Set {
	return &Set{Name: "served" + s.digit(), Key: s.flowKey(), Dynamic: true, Size: ServedSize, Timeout: answerTime,
		Comment: "peer . protocol . own port: may be answered"}
}

// remembered gives the dynamic sets of a namespace and family.
func (s site) remembered() []*Set {
	var out []*Set
	for _, d := range []policy.Direction{policy.Egress, policy.Ingress} {
		family := 4
		if s.v6 {
			family = 6
		}
		out = append(out,
			&Set{Name: SeenSet(d, family), Key: s.flowKey(), Dynamic: true, Size: SeenSize, Timeout: seenTime, Counted: true},
			&Set{Name: DeniedSet(d, family), Key: s.flowKey(), Dynamic: true, Size: DeniedSize, Timeout: deniedTime, Counted: true})
	}
	return append(out, s.served(),
		&Set{Name: "clients" + s.digit(), Key: Key{s.addrPart(), InetService, InetService}, Dynamic: true, Size: ClientsSize,
			Timeout: answerTime, Comment: "peer . peer's port . own port: may answer"})
}
