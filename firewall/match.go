package firewall

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// clause is one part of a rule: what nft prints of it, and what the kernel runs.
//
// nft leaves out what a later part implies ("meta nfproto ipv4" before "ip daddr"), so a clause may
// have no text. It needs those parts all the same: without them it prints "@nh,128,32" for an
// address.
type clause struct {
	text  string
	exprs []expr.Any
}

// newRule joins clauses. They come from this file and always encode.
func newRule(comment string, clauses ...clause) Rule {
	var text []string
	var wire, compat attrs
	differs := false
	for _, c := range clauses {
		if c.text != "" {
			text = append(text, c.text)
		}
		for _, e := range c.exprs {
			data := marshal(e, text)
			wire.nest(unix.NFTA_LIST_ELEM, func() { wire = append(wire, data...) })
			if q, ok := e.(*expr.Queue); ok {
				data, differs = marshal(target(q), text), true
			}
			compat.nest(unix.NFTA_LIST_ELEM, func() { compat = append(compat, data...) })
		}
	}
	r := Rule{Text: strings.Join(text, " "), Comment: comment, wire: wire, canon: canonical(wire)}
	if differs {
		r.compat, r.compatCanon = compat, canonical(compat)
	}
	return r
}

func marshal(e expr.Any, text []string) []byte {
	data, err := expr.Marshal(unix.NFPROTO_INET, e)
	if err != nil {
		panic(fmt.Sprintf("rule %q: %v", strings.Join(text, " "), err))
	}
	return data
}

// site is where a rule stands: the address family it judges, and whether its table is netdev, which
// sees frames.
type site struct {
	v6     bool
	netdev bool
}

func (s site) digit() string {
	if s.v6 {
		return "6"
	}
	return "4"
}

func (s site) ip() string {
	if s.v6 {
		return "ip6"
	}
	return "ip"
}

// icmp is the protocol number of the family's control messages.
func (s site) icmp() identity.Protocol {
	if s.v6 {
		return identity.ICMPv6
	}
	return identity.ICMP
}

func load(key expr.MetaKey) *expr.Meta { return &expr.Meta{Key: key, Register: 1} }

func equal(data ...byte) *expr.Cmp { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

func unequal(data ...byte) *expr.Cmp { return &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: data} }

func payload(base expr.PayloadBase, offset, length uint32) *expr.Payload {
	return &expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: length}
}

// family matches the site's address family.
func (s site) family(text string) clause {
	if s.netdev {
		proto := []byte{0x08, 0x00}
		if s.v6 {
			proto = []byte{0x86, 0xdd}
		}
		return clause{text, []expr.Any{load(expr.MetaKeyPROTOCOL), equal(proto...)}}
	}
	proto := byte(unix.NFPROTO_IPV4)
	if s.v6 {
		proto = unix.NFPROTO_IPV6
	}
	return clause{text, []expr.Any{load(expr.MetaKeyNFPROTO), equal(proto)}}
}

// isFamily is family where nothing follows that implies it.
func (s site) isFamily() clause {
	switch {
	case s.netdev:
		return s.family("meta protocol " + s.ip())
	case s.v6:
		return s.family("meta nfproto ipv6")
	}
	return s.family("meta nfproto ipv4")
}

// l4 matches a transport protocol; text is empty where what follows implies it.
func l4(p identity.Protocol, text string) clause {
	return clause{text, []expr.Any{load(expr.MetaKeyL4PROTO), equal(byte(p))}}
}

// isL4 is l4 where nothing follows that implies it.
func isL4(p identity.Protocol) clause {
	return l4(p, "meta l4proto "+protocolNames[int(p)])
}

// Bits of the TCP header's flags.
const (
	tcpSYN = 0x02
	tcpRST = 0x04
	tcpACK = 0x10
)

func tcpFlags(text string, mask, value byte, op expr.CmpOp) clause {
	return clause{text, []expr.Any{load(expr.MetaKeyL4PROTO), equal(byte(identity.TCP)),
		payload(expr.PayloadBaseTransportHeader, 13, 1),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{mask}, Xor: []byte{0}},
		&expr.Cmp{Op: op, Register: 1, Data: []byte{value}}}}
}

// tcpBirth matches the first segment of a connection, tcpLater every other one. Neither matches
// what does not carry the flags: a later fragment, or a first one cut short.
func tcpBirth() clause {
	return tcpFlags("tcp flags syn / syn,ack", tcpSYN|tcpACK, tcpSYN, expr.CmpOpEq)
}

func tcpLater() clause {
	return tcpFlags("tcp flags != syn / syn,ack", tcpSYN|tcpACK, tcpSYN, expr.CmpOpNeq)
}

func tcpReset() clause { return tcpFlags("tcp flags rst", tcpRST, 0, expr.CmpOpNeq) }

// sctpLater matches every SCTP packet whose first chunk is not INIT (1): INIT travels alone
// (RFC 9260, 6.10). Text follows what comes after it.
func sctpLater(text string) clause {
	return clause{text, []expr.Any{load(expr.MetaKeyL4PROTO), equal(byte(identity.SCTP)),
		payload(expr.PayloadBaseTransportHeader, 12, 1), unequal(1)}}
}

// laterFragment matches the fragments after the first, which carry no transport header.
func (s site) laterFragment() clause {
	if s.v6 {
		return clause{"frag frag-off != 0", []expr.Any{
			&expr.Exthdr{DestRegister: 1, Type: unix.IPPROTO_FRAGMENT, Offset: 2, Len: 2, Op: expr.ExthdrOpIpv6},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{0xff, 0xf8}, Xor: []byte{0, 0}},
			unequal(0, 0)}}
	}
	return clause{"ip frag-off & 8191 != 0", append(s.family("").exprs,
		payload(expr.PayloadBaseNetworkHeader, 6, 2),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{0x1f, 0xff}, Xor: []byte{0, 0}},
		unequal(0, 0))}
}

// icmpType matches message types from a to b.
func (s site) icmpType(a, b byte) clause {
	names, name := icmpNames, "icmp"
	if s.v6 {
		names, name = icmpv6Names, "icmpv6"
	}
	c := l4(s.icmp(), name+" type "+numberRange(int(a), int(b), names))
	c.exprs = append(c.exprs, payload(expr.PayloadBaseTransportHeader, 0, 1))
	if a == b {
		c.exprs = append(c.exprs, equal(a))
	} else {
		c.exprs = append(c.exprs, &expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: []byte{a}},
			&expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: []byte{b}})
	}
	return c
}

// adminProhibited matches the error that a rejected packet is answered with (RFC 1812, 5.2.7.1;
// RFC 4443, 3.1).
func (s site) adminProhibited() clause {
	c, code, text := s.icmpType(3, 3), byte(13), "icmp code admin-prohibited"
	if s.v6 {
		c, code, text = s.icmpType(1, 1), 1, "icmpv6 code admin-prohibited"
	}
	c.text += " " + text
	c.exprs = append(c.exprs, payload(expr.PayloadBaseTransportHeader, 1, 1), equal(code))
	return c
}

// ndTarget matches the target of a neighbour solicitation or advertisement (RFC 4861, 4.3, 4.4).
func ndTarget(a netip.Addr) clause {
	b := a.As16()
	return clause{fmt.Sprintf("@th,64,128 0x%x", b[:]),
		[]expr.Any{payload(expr.PayloadBaseTransportHeader, 8, 16), equal(b[:]...)}}
}

// loopbackIndex is the index of lo in every network namespace (LOOPBACK_IFINDEX, include/net/flow.h). Names
// can be given away.
const loopbackIndex = 1

// onLoopback matches packets that come in by lo or go out by it.
func onLoopback(out bool) clause {
	key, text := expr.MetaKeyIIF, `iif "lo"`
	if out {
		key, text = expr.MetaKeyOIF, `oif "lo"`
	}
	return clause{text, []expr.Any{load(key), equal(binary.NativeEndian.AppendUint32(nil, loopbackIndex)...)}}
}

// loopback matches packets to a loopback address.
func (s site) loopback() clause {
	if s.v6 {
		one := netip.IPv6Loopback().As16()
		return s.key(s.addr(false)).is("::1", one[:])
	}
	net := packetField("ip daddr", expr.PayloadBaseNetworkHeader, 16, 1)
	return s.key(net).is("127.0.0.0/8", []byte{127})
}

func accept() clause {
	return clause{"accept", []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}}
}

func drop() clause { return clause{"drop", []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}} }

func goTo(chain string) clause {
	return clause{"goto " + chain, []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}}
}

func count(counter string) clause {
	return clause{fmt.Sprintf("counter name %q", counter),
		[]expr.Any{&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: counter}}}
}

// atMost bounds what follows to a number of packets a second, bursts of twice as many.
func atMost(perSecond uint64) clause {
	return clause{fmt.Sprintf("limit rate %d/second burst %d packets", perSecond, 2*perSecond),
		[]expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: perSecond, Unit: expr.LimitTimeSecond, Burst: uint32(2 * perSecond)}}}
}

func logTo(prefix string) clause {
	return clause{fmt.Sprintf("log prefix %q group %d snaplen %d", prefix, LogGroup, LogSnapLen),
		[]expr.Any{&expr.Log{
			Key:     1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_SNAPLEN,
			Group:   LogGroup,
			Snaplen: LogSnapLen,
			Data:    []byte(prefix),
		}}}
}
