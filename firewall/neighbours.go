package firewall

import (
	"encoding/binary"
	"fmt"
	"net"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// Types of ICMPv6 messages (RFC 4861, RFC 2710, RFC 3810).
const (
	mldQuery        = 130
	mldReport       = 131
	mldDone         = 132
	routerSolicit   = 133
	routerAdvert    = 134
	neighbourAsk    = 135
	neighbourAdvert = 136
	redirectMessage = 137
	mld2Report      = 143
)

// Link-layer address options (RFC 4861, 4.6.1).
const (
	sourceLinkLayer = 1
	targetLinkLayer = 2
)

// neighbourChain looks at IPv6 frames whose source is the workload's. Neighbours must be told its own
// addresses and its own MAC, and nothing beside that; it is no router and asks no path.
func (g guard) neighbourChain() *Chain {
	c := &Chain{Name: "sent6"}
	add := func(comment string, cl ...clause) { c.Rules = append(c.Rules, newRule(comment, cl...)) }
	s := site{v6: true, netdev: true}
	next := accept()
	if g.judges() {
		next = goTo("pair6")
	}
	// Nearly all packets have the transport right behind, so that no other header can be there.
	add("next header tcp", nextHeader(identity.TCP), next)
	add("next header udp", nextHeader(identity.UDP), next)
	add("", routingHeader(), goTo("spoof"))
	add("", notL4(identity.ICMPv6), next)
	add("", s.icmpType(neighbourAsk, neighbourAsk), s.bare(24), accept())
	add("", s.icmpType(neighbourAsk, neighbourAsk), s.bare(32), linkLayer(sourceLinkLayer, g.ifc.MAC), accept())
	for _, a := range g.addrs(true) {
		add("", s.icmpType(neighbourAdvert, neighbourAdvert), ndTarget(a), s.bare(24), accept())
		add("", s.icmpType(neighbourAdvert, neighbourAdvert), ndTarget(a), s.bare(32), linkLayer(targetLinkLayer, g.ifc.MAC), accept())
	}
	add("", s.icmpType(mldReport, routerSolicit), s.toMulticast(), accept())
	add("", s.icmpType(mld2Report, mld2Report), s.toMulticast(), accept())
	add("", s.icmpType(mldQuery, redirectMessage), goTo("spoof"))
	add("", s.icmpType(mld2Report, mld2Report), goTo("spoof"))
	if g.judges() {
		add("", next) // what no transport is found in ends there too
		return c
	}
	add("", isL4(identity.ICMPv6), accept())
	add("no transport found", goTo("spoof"))
	return c
}

// nextHeader matches packets whose transport follows the IPv6 header at once. Every frame meets it:
// nft would print "ip6 nexthdr" only where the family was asked for once more.
func nextHeader(p identity.Protocol) clause {
	return clause{fmt.Sprintf("@nh,48,8 %#x", byte(p)), []expr.Any{payload(expr.PayloadBaseNetworkHeader, 6, 1), equal(byte(p))}}
}

// routingHeader matches packets that ask for a path (RFC 8200, 4.4): they reach others than whom they
// are addressed to.
func routingHeader() clause {
	return clause{"exthdr rt exists", []expr.Any{
		&expr.Exthdr{DestRegister: 1, Type: unix.IPPROTO_ROUTING, Offset: 0, Len: 1, Flags: unix.NFT_EXTHDR_F_PRESENT, Op: expr.ExthdrOpIpv6},
		equal(1)}}
}

func notL4(p identity.Protocol) clause {
	return clause{"meta l4proto != " + protocolNames[int(p)], []expr.Any{load(expr.MetaKeyL4PROTO), unequal(byte(p))}}
}

// bare matches packets of so many bytes behind the IPv6 header: a message without options has 24, one
// with a link-layer address 32 (RFC 4861, 4.3, 4.4). What is longer could say two things at once.
func (s site) bare(n uint16) clause {
	return clause{fmt.Sprintf("ip6 length %d", n),
		append(s.family("").exprs, payload(expr.PayloadBaseNetworkHeader, 4, 2), equal(byte(n>>8), byte(n)))}
}

// linkLayer matches a first option of the given type that holds the MAC.
func linkLayer(option byte, mac net.HardwareAddr) clause {
	// Of eight bytes also where the MAC is none of Ethernet, which is refused when it is applied.
	want := append(append([]byte{option, 1}, mac...), make([]byte, 6)...)[:8]
	return clause{fmt.Sprintf("@th,192,64 %#x", binary.BigEndian.Uint64(want)), []expr.Any{payload(expr.PayloadBaseTransportHeader, 24, 8), equal(want...)}}
}

// toMulticast matches packets to a group: what routers and snooping switches listen to.
func (s site) toMulticast() clause {
	return clause{"ip6 daddr ff00::/8", append(s.family("").exprs, payload(expr.PayloadBaseNetworkHeader, 24, 1), equal(0xff))}
}
