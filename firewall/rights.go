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
	open   bool
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
	s := sideRights{open: !side.Isolated, exact: map[right]bool{}, every: map[netip.Addr]bool{}}
	for _, e := range side.Entries {
		switch {
		case e.Exact() && e.Protocol == identity.AnyProtocol:
			s.every[e.Peer.Addr()] = true
		case e.Exact():
			s.exact[right{e.Peer.Addr(), e.Protocol, e.Port}] = true
		default:
			s.blocks = append(s.blocks, e)
		}
	}
	return s
}

// allow says whether the side lets the connection be: it is open, or an entry names it.
func (s sideRights) allow(r right) bool { return s.open || s.names(r) }

func (s sideRights) names(r right) bool { return s.exact[r] || s.wide(r) }

// wide is names without the exact entries.
func (s sideRights) wide(r right) bool {
	if s.every[r.peer] {
		return true
	}
	for _, e := range s.blocks {
		if !e.Peer.Contains(r.peer) {
			continue
		}
		if e.Protocol == identity.AnyProtocol || e.Protocol == r.proto && e.Port <= r.port && r.port <= e.EndPort {
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
	asked := r.egress.names(right{peer, identity.TCP, s.remote.Port()})
	answered := r.ingress.names(right{peer, identity.TCP, s.local.Port()})
	if listening {
		return r.ingress.open || answered || !r.egress.open && asked
	}
	return r.egress.open || asked || !r.ingress.open && answered
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
