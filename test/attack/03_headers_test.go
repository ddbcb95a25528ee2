package attack

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// IPv6 headers between the first and the transport (RFC 8200, 4), and packets within packets.

const (
	nextHopByHop = 0
	nextRouting  = 43
	nextFragment = 44
	nextESP      = 50
	nextAH       = 51
	nextNone     = 59
	nextOptions  = 60
	nextUnknown  = 253 // for experiments (RFC 3692)
)

// extension is an options header of 8 bytes: next, no more length, a PadN option.
func extension(next byte) []byte { return []byte{next, 0, 1, 4, 0, 0, 0, 0} }

// routing is a routing header with one segment left.
func routing(next, typ byte, segment netip.Addr) []byte {
	b := []byte{next, 2, typ, 1, 0, 0, 0, 0}
	return append(b, segment.AsSlice()...)
}

// fragment is a fragment header: offset in bytes, a multiple of 8.
func fragment(next byte, offset int, more bool, id uint32) []byte {
	n := uint16(offset)
	if more {
		n |= 1
	}
	b := binary.BigEndian.AppendUint16([]byte{next, 0}, n)
	return binary.BigEndian.AppendUint32(b, id)
}

// authentication is an AH header of 16 bytes (RFC 4302).
func authentication(next byte) []byte {
	return append([]byte{next, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}, make([]byte, 4)...)
}

// six is a frame of an IPv6 packet between true ends.
func (a *attempt) six(to *host, next byte, parts ...[]byte) []byte {
	return ether(a.attacker.mac, to.mac, typeIPv6, ip6(a.attacker.v6, to.v6, next, parts...))
}

func headers() []trick {
	dgram := func(a *attempt, to *host, port uint16) []byte {
		return udpHead(a.attacker.v6, to.v6, 40000, port, a.token)
	}
	denied := func(name string, next byte, head func(next byte) []byte) trick {
		return raw("ip6_"+name, func(a *attempt) [][]byte {
			return [][]byte{a.six(a.victim, next, head(protoUDP), dgram(a, a.victim, 53))}
		})
	}
	out := []trick{
		denied("hop_by_hop", nextHopByHop, extension),
		denied("destination_options", nextOptions, extension),
		denied("authentication", nextAH, authentication),
		denied("atomic_fragment", nextFragment, func(next byte) []byte { return fragment(next, 0, false, 7) }),
		denied("two_fragment_headers", nextFragment, func(next byte) []byte {
			return append(fragment(nextFragment, 0, false, 7), fragment(next, 0, false, 8)...)
		}),
		denied("hop_by_hop_not_first", nextOptions, func(next byte) []byte { return append(extension(nextHopByHop), extension(next)...) }),
		denied("many_headers", nextOptions, func(next byte) (b []byte) {
			for range 60 {
				b = append(b, extension(nextOptions)...)
			}
			return append(b, extension(next)...)
		}),
		denied("unknown_header", nextUnknown, extension),
		denied("no_next_header", nextNone, extension),
		denied("header_longer_than_packet", nextOptions, func(next byte) []byte { return []byte{next, 200, 1, 4, 0, 0, 0, 0} }),
		raw("ip6_jumbogram", func(a *attempt) [][]byte {
			d := dgram(a, a.victim, 53)
			hop := binary.BigEndian.AppendUint32([]byte{protoUDP, 0, 0xc2, 4}, uint32(len(d)+8)) // RFC 2675
			f := a.six(a.victim, nextHopByHop, hop, d)
			f[14+4], f[14+5] = 0, 0
			return [][]byte{f}
		}),
	}
	// To who is allowed, but on to the victim: a routing header asks for that.
	for name, typ := range map[string]byte{"0": 0, "2": 2, "4_segment_routing": 4} {
		tr := spoofed("ip6_routing_type_"+name, func(a *attempt) [][]byte {
			return [][]byte{a.six(a.outsider, nextRouting, routing(protoUDP, typ, a.victim.v6), dgram(a, a.outsider, 5353)),
				a.six(a.outsider, nextHopByHop, extension(nextRouting), routing(protoUDP, typ, a.victim.v6), dgram(a, a.outsider, 5353))}
		})
		out = append(out, tr)
	}
	return out
}

// tunnels are packets within packets, to who may be sent UDP alone.
func tunnels() []trick {
	var out []trick
	within := func(name string, proto byte, head []byte, inner func(a *attempt) []byte) {
		out = append(out, raw("tunnel_"+name, func(a *attempt) [][]byte {
			return [][]byte{a.packet(false, a.outsider, proto, append(append([]byte{}, head...), inner(a)...)),
				a.packet(true, a.outsider, proto, append(append([]byte{}, head...), inner(a)...))}
		}))
	}
	four := func(a *attempt) []byte { return a.udp(false, a.victim, 53, a.token)[14:] }
	six := func(a *attempt) []byte { return a.udp(true, a.victim, 53, a.token)[14:] }
	frame := func(a *attempt) []byte { return a.udp(false, a.victim, 53, a.token) }
	within("ipip", 4, nil, four)
	within("6in4", 41, nil, six)
	within("gre", 47, []byte{0, 0, 8, 0}, four)
	within("gre_ports", 47, []byte{0x9c, 0x40, 0x14, 0xe9}, four) // what a port match would take for 40000 and 5353
	within("esp", nextESP, []byte{0x9c, 0x40, 0x14, 0xe9, 0, 0, 0, 1}, four)
	within("etherip", 97, []byte{0x30, 0}, frame)
	within("ipcomp", 108, []byte{4, 0, 0, 1}, four)
	within("l2tp", 115, []byte{0, 0, 0, 1}, frame)
	within("udplite", 136, []byte{0x9c, 0x40, 0x14, 0xe9, 0, 8, 0, 0}, four)
	within("sctp", protoSCTP, []byte{0x9c, 0x40, 0x14, 0xe9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20}, four)
	within("dccp", 33, []byte{0x9c, 0x40, 0x14, 0xe9, 4, 0, 0, 0}, four)
	within("vxlan_to_another_port", protoUDP, []byte{0x12, 0xb5, 0x12, 0xb5, 0, 80, 0, 0, 8, 0, 0, 0, 0, 0, 7, 0}, frame)
	return append(out, others()...)
}

// others are frames whose IP packet is allowed, but that are handed to somebody else. Who is in league
// with the sender may read them off its interface (docs/attacks.md); nobody else's IP stack takes them.
func others() []trick {
	var out []trick
	for _, l := range []struct {
		name string
		mac  func(a *attempt) net.HardwareAddr
	}{
		{"victim", func(a *attempt) net.HardwareAddr { return a.victim.mac }},
		{"everybody", func(*attempt) net.HardwareAddr { return broadcast }},
		{"multicast", func(*attempt) net.HardwareAddr { return net.HardwareAddr{1, 0, 0x5e, 0, 0, 1} }},
	} {
		tr := trick{name: "allowed_packet_to_mac_of_" + l.name, atSocket: true, harmless: "an IP stack takes no packet of another address"}
		tr.run = func(a *attempt) error {
			four, six := a.udp(false, a.outsider, 5353, a.token), a.udp(true, a.outsider, 5353, a.token)
			copy(four, l.mac(a))
			copy(six, l.mac(a))
			return a.frames(byPacket, four, six)
		}
		tr.wins = func(a *attempt, at *host, b []byte) bool { return at != a.outsider && holds(a.token)(at, b) }
		out = append(out, tr)
	}
	return out
}
