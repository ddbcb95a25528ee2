package firewall

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
)

// Part is one part of a set's key.
type Part uint8

// The parts, by nft's name. Their order says nothing.
const (
	IPv4Addr Part = iota + 1
	IPv6Addr
	InetProto
	InetService
	ICMPType
	ICMPv6Type
)

// parts says for each part: nft's name and number of the type (nftables, include/datatype.h), and
// how many bytes of its place in the key are used.
var parts = [...]struct {
	name string
	kind uint32
	size int
}{
	IPv4Addr:    {"ipv4_addr", 7, 4},
	IPv6Addr:    {"ipv6_addr", 8, 16},
	InetProto:   {"inet_proto", 12, 1},
	InetService: {"inet_service", 13, 2},
	ICMPType:    {"icmp_type", 14, 1},
	ICMPv6Type:  {"icmpv6_type", 29, 1},
}

// Key is the type of a set's key: one part, or several that are looked up together.
type Key []Part

func (p Part) padded() int { return (parts[p].size + 3) &^ 3 }

// size is how long a key is in bytes, padding included.
func (k Key) size() int {
	n := 0
	for _, p := range k {
		n += p.padded()
	}
	return n
}

// number is how nft writes the type of the whole key: six bits a part.
func (k Key) number() uint32 {
	var n uint32
	for _, p := range k {
		n = n<<6 | parts[p].kind
	}
	return n
}

func keyOfNumber(n uint32) Key {
	var k Key
	for ; n != 0; n >>= 6 {
		for p := IPv4Addr; int(p) < len(parts); p++ {
			if parts[p].kind == n&63 {
				k = append(Key{p}, k...)
			}
		}
	}
	return k
}

func (k Key) String() string {
	names := make([]string, len(k))
	for i, p := range k {
		names[i] = parts[p].name
	}
	return strings.Join(names, " . ")
}

// text prints an element as nft does.
func (k Key) text(e Element) string {
	var b strings.Builder
	at := 0
	for i, p := range k {
		if i > 0 {
			b.WriteString(" . ")
		}
		if at+p.padded() > len(e.Key) {
			return "malformed"
		}
		from := e.Key[at : at+parts[p].size]
		to := from
		if len(e.End) == len(e.Key) {
			to = e.End[at : at+parts[p].size]
		}
		b.WriteString(p.text(from, to))
		at += p.padded()
	}
	return b.String()
}

func (p Part) text(from, to string) string {
	switch p {
	case IPv4Addr, IPv6Addr:
		a, _ := netip.AddrFromSlice([]byte(from))
		b, _ := netip.AddrFromSlice([]byte(to))
		if a == b {
			return a.String()
		}
		if pfx, ok := prefixOf(a, b); ok {
			return pfx.String()
		}
		return a.String() + "-" + b.String()
	case InetService:
		a, b := binary.BigEndian.Uint16([]byte(from)), binary.BigEndian.Uint16([]byte(to))
		return numberRange(int(a), int(b), nil)
	case InetProto:
		return numberRange(int(from[0]), int(to[0]), protocolNames)
	case ICMPType:
		return numberRange(int(from[0]), int(to[0]), icmpNames)
	case ICMPv6Type:
		return numberRange(int(from[0]), int(to[0]), icmpv6Names)
	}
	return "?"
}

func numberRange(a, b int, names map[int]string) string {
	if a != b {
		return strconv.Itoa(a) + "-" + strconv.Itoa(b)
	}
	if n, ok := names[a]; ok {
		return n
	}
	return strconv.Itoa(a)
}

// The names that nft prints; protocols come from /etc/protocols there.
var (
	protocolNames = map[int]string{1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 33: "dccp", 47: "gre",
		50: "esp", 51: "ah", 58: "ipv6-icmp", 132: "sctp", 136: "udplite"}
	icmpNames = map[int]string{0: "echo-reply", 3: "destination-unreachable", 4: "source-quench",
		5: "redirect", 8: "echo-request", 9: "router-advertisement", 10: "router-solicitation",
		11: "time-exceeded", 12: "parameter-problem", 13: "timestamp-request", 14: "timestamp-reply",
		15: "info-request", 16: "info-reply", 17: "address-mask-request", 18: "address-mask-reply"}
	icmpv6Names = map[int]string{1: "destination-unreachable", 2: "packet-too-big", 3: "time-exceeded",
		4: "parameter-problem", 128: "echo-request", 129: "echo-reply", 130: "mld-listener-query",
		131: "mld-listener-report", 132: "mld-listener-done", 133: "nd-router-solicit",
		134: "nd-router-advert", 135: "nd-neighbor-solicit", 136: "nd-neighbor-advert",
		137: "nd-redirect", 138: "router-renumbering", 141: "ind-neighbor-solicit",
		142: "ind-neighbor-advert", 143: "mld2-listener-report"}
)

// prefixOf says whether the range from a to b is one CIDR block.
func prefixOf(a, b netip.Addr) (netip.Prefix, bool) {
	x, y := a.AsSlice(), b.AsSlice()
	bits := 0
	for bits < a.BitLen() && bit(x, bits) == bit(y, bits) {
		bits++
	}
	p := netip.PrefixFrom(a, bits)
	return p, p.Masked().Addr() == a && lastOf(p) == b
}

func bit(b []byte, i int) byte { return b[i/8] >> (7 - i%8) & 1 }

// lastOf is the last address of a block.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
