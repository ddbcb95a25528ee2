package firewall

import (
	"net/netip"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// rights answers for single connections what the sets answer for packets.
type rights struct {
	egress, ingress sideRights
	own             map[netip.Addr]bool
}

type sideRights struct {
	open bool
	named
	denied named
}

// named is what a list of entries names.
type named struct {
	exact  map[right]bool
	every  map[netip.Addr]bool
	blocks []policy.Entry
}

// right is a peer with a protocol and a server port, or an ICMP type.
type right struct {
	peer  netip.Addr
	proto identity.Protocol
	port  uint16
}

func newRights(spec Spec) rights {
	r := rights{newSideRights(spec.Sides.Egress), newSideRights(spec.Sides.Ingress), map[netip.Addr]bool{}}
	for _, ifc := range spec.Interfaces {
		for _, a := range ifc.Addrs {
			r.own[a.Unmap().WithZone("")] = true
		}
	}
	return r
}

func newSideRights(side policy.Side) sideRights {
	return sideRights{!side.Isolated, newNamed(side.Entries), newNamed(side.Denied)}
}

func newNamed(entries []policy.Entry) named {
	n := named{map[right]bool{}, map[netip.Addr]bool{}, nil}
	for _, e := range entries {
		switch {
		case e.Exact() && e.Protocol == identity.AnyProtocol:
			n.every[e.Peer.Addr()] = true
		case e.Exact():
			n.exact[right{e.Peer.Addr(), e.Protocol, e.Port}] = true
		default:
			n.blocks = append(n.blocks, e)
		}
	}
	return n
}

// allow says whether the side lets the connection be: it is open or an entry names it, and nothing
// denies it.
func (s sideRights) allow(r right) bool { return (s.open || s.names(r)) && !s.denied.names(r) }

// lists says whether the side is not open and allows it all the same.
func (s sideRights) lists(r right) bool { return !s.open && s.allow(r) }

// unnamed says whether the side allows it by a right that names no port.
func (s sideRights) unnamed(r right) bool { return (s.open || s.wide(r)) && !s.denied.names(r) }

func (n named) names(r right) bool { return n.exact[r] || n.wide(r) }

// wide is names without the exact entries.
func (n named) wide(r right) bool {
	if n.every[r.peer] {
		return true
	}
	for _, e := range n.blocks {
		if e.Peer.Contains(r.peer) && e.Covers(r.proto, r.port) {
			return true
		}
	}
	return false
}

// allowSocket judges a TCP connection. listening says that something still listens on its own port.
func (r rights) allowSocket(s tcpSocket, listening bool) bool {
	peer := s.remote.Addr()
	if peer.IsLoopback() || peer == s.local.Addr() || r.own[peer] {
		return true
	}
	ask, answer := right{peer, identity.TCP, s.remote.Port()}, right{peer, identity.TCP, s.local.Port()}
	if listening {
		return r.ingress.allow(answer) || r.egress.lists(ask)
	}
	return r.egress.allow(ask) || r.ingress.lists(answer)
}

// allowServed judges what a set of what may be answered remembers: peer, protocol, own port. For
// ICMP it is an echo request of either direction, and the port its identifier.
func (r rights) allowServed(k right) bool {
	switch k.proto {
	case identity.ICMP:
		k.port = 8
	case identity.ICMPv6:
		k.port = 128
	default:
		return r.ingress.allow(k)
	}
	return r.ingress.allow(k) || r.egress.allow(k)
}
