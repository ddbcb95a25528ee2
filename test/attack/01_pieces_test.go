package attack

import (
	"github.com/bulkhead-firewall/bulkhead/alert"
)

// Fragments and extension headers that try to get by port matches, to who may be sent UDP to 5353
// alone: out_ from the attacker to the outsider, whose guard alone stands in between; in_ from the
// outsider to the victim, whose own rules do.

// deniedPort is where nobody may send.
const deniedPort = 99

// rfc7112 is why some need no firewall.
const rfc7112 = "Linux drops a first fragment without the whole header chain (RFC 7112)"

// ends are the addresses of such a trick.
func (a *attempt) ends() (from, to *host) {
	if a.trick.outsider {
		return a.outsider, a.victim
	}
	return a.attacker, a.outsider
}

// pieces6 are frames of IPv6 packets that each begin with the given headers.
func (a *attempt) pieces6(next byte, packets ...[]byte) (out [][]byte) {
	from, to := a.ends()
	for _, p := range packets {
		out = append(out, ether(from.mac, to.mac, typeIPv6, ip6(from.v6, to.v6, next, p)))
	}
	return out
}

// pieces4 cuts a packet into fragments at the given offsets of its payload.
func (a *attempt) pieces4(proto byte, payload []byte, id uint16, cuts ...int) (out [][]byte) {
	from, to := a.ends()
	for i, at := range append([]int{0}, cuts...) {
		end := len(payload)
		if i < len(cuts) {
			end = cuts[i]
		}
		p := fragment4(ip4(from.v4, to.v4, proto, nil, payload[at:end]), id, at, end < len(payload))
		out = append(out, ether(from.mac, to.mac, typeIPv4, p))
	}
	return out
}

func join(parts ...[]byte) (out []byte) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// byPieces are tricks of fragments. What is heard at a socket is a whole datagram to a denied port.
func byPieces(in bool) []trick {
	prefix := "out_"
	if in {
		prefix = "in_"
	}
	var out []trick
	add := func(name string, build func(a *attempt, id uint16) [][]byte) {
		tr := trick{name: prefix + name, outsider: in, atSocket: true, alert: alert.RawSocket}
		if in {
			tr.alert = alert.DeniedBy
		}
		tr.run = func(a *attempt) error { return a.frames(byPacket, build(a, a.fresh())...) }
		// One datagram, of several frames.
		tr.whole = true
		out = append(out, tr)
	}
	dgram := func(a *attempt, v6 bool, port uint16) []byte {
		from, to := a.ends()
		return udpHead(from.addr(v6), to.addr(v6), 40000, port, join(make([]byte, 40), a.token))
	}
	segment := func(a *attempt, v6 bool) []byte {
		from, to := a.ends()
		return tcpHead(from.addr(v6), to.addr(v6), 40000, 80, flagSYN, join(make([]byte, 44), a.token))
	}
	six := func(next byte, payload []byte, id uint16, cuts ...int) (out [][]byte) {
		for i, at := range append([]int{0}, cuts...) {
			end := len(payload)
			if i < len(cuts) {
				end = cuts[i]
			}
			out = append(out, join(fragment(next, at, end < len(payload), uint32(id)), payload[at:end]))
		}
		return out
	}
	reversed := func(frames [][]byte) [][]byte {
		for i, j := 0, len(frames)-1; i < j; i, j = i+1, j-1 {
			frames[i], frames[j] = frames[j], frames[i]
		}
		return frames
	}

	add("fragments4", func(a *attempt, id uint16) [][]byte { return a.pieces4(protoUDP, dgram(a, false, deniedPort), id, 24) })
	add("fragments6", func(a *attempt, id uint16) [][]byte {
		return a.pieces6(nextFragment, six(protoUDP, dgram(a, true, deniedPort), id, 24)...)
	})
	add("fragments4_tiny_first", func(a *attempt, id uint16) [][]byte { return a.pieces4(protoTCP, segment(a, false), id, 8, 16, 24) })
	add("fragments6_tiny_first", func(a *attempt, id uint16) [][]byte {
		return a.pieces6(nextFragment, six(protoTCP, segment(a, true), id, 8, 16, 24)...)
	})
	add("fragments4_out_of_order", func(a *attempt, id uint16) [][]byte {
		return reversed(a.pieces4(protoUDP, dgram(a, false, deniedPort), id, 16, 32))
	})
	add("fragments6_out_of_order", func(a *attempt, id uint16) [][]byte {
		return reversed(a.pieces6(nextFragment, six(protoUDP, dgram(a, true, deniedPort), id, 16, 32)...))
	})
	add("fragment6_atomic", func(a *attempt, id uint16) [][]byte {
		return a.pieces6(nextFragment, six(protoUDP, dgram(a, true, deniedPort), id)...)
	})
	out[3].harmless = rfc7112
	// The header that says where to begins in the first fragment and ends in the second.
	odd := func(name string, build func(a *attempt, id uint16) [][]byte) {
		add(name, build)
		out[len(out)-1].harmless = rfc7112
	}
	odd("fragments6_header_beyond_the_first", func(a *attempt, id uint16) [][]byte {
		options := join([]byte{protoUDP, 2, 1, 20}, make([]byte, 20)) // 24 bytes
		return a.pieces6(nextFragment, six(nextOptions, join(options, dgram(a, true, deniedPort)), id, 8, 16, 32)...)
	})
	odd("fragments6_transport_in_the_second", func(a *attempt, id uint16) [][]byte {
		return a.pieces6(nextFragment, six(nextOptions, join(extension(protoUDP), dgram(a, true, deniedPort)), id, 8)...)
	})
	odd("fragments6_of_fragments", func(a *attempt, id uint16) [][]byte {
		inner := join(fragment(protoUDP, 0, false, uint32(id)+1), dgram(a, true, deniedPort))
		return a.pieces6(nextFragment, six(nextFragment, inner, id, 16)...)
	})
	// An allowed port first, and then another first fragment of the same packet over it.
	overlapping := func(name string, build func(a *attempt, id uint16) [][]byte) {
		add(name, build)
		out[len(out)-1].harmless = "Linux drops a packet whose fragments overlap (RFC 5722)"
		out[len(out)-1].wins = nil
		out[len(out)-1].alert = ""
	}
	overlapping("fragments4_overlap_the_port", func(a *attempt, id uint16) [][]byte {
		good, bad := a.pieces4(protoUDP, dgram(a, false, 5353), id, 16), a.pieces4(protoUDP, dgram(a, false, deniedPort), id, 24)
		return [][]byte{good[0], bad[0], bad[1]}
	})
	overlapping("fragments6_overlap_the_port", func(a *attempt, id uint16) [][]byte {
		good := a.pieces6(nextFragment, six(protoUDP, dgram(a, true, 5353), id, 16)...)
		bad := a.pieces6(nextFragment, six(protoUDP, dgram(a, true, deniedPort), id, 24)...)
		return [][]byte{good[0], bad[0], bad[1]}
	})
	return out
}

// byHeaders are packets to the victim whose transport stands behind other headers: the victim's end
// must find it.
func byHeaders() []trick {
	var out []trick
	for _, h := range []struct {
		name string
		next byte
		head func(next byte) []byte
	}{
		{"hop_by_hop", nextHopByHop, extension},
		{"destination_options", nextOptions, extension},
		{"options_twice", nextOptions, func(next byte) []byte { return join(extension(nextOptions), extension(next)) }},
		{"everything", nextHopByHop, func(next byte) []byte {
			return join(extension(nextOptions), extension(nextFragment), fragment(nextOptions, 0, false, 77), extension(next))
		}},
	} {
		out = append(out, trick{name: "in_ip6_" + h.name, outsider: true, atSocket: true, alert: alert.DeniedBy, run: func(a *attempt) error {
			from, to := a.ends()
			d := udpHead(from.v6, to.v6, 40000, deniedPort, a.token)
			return a.frames(byPacket, a.pieces6(h.next, join(h.head(protoUDP), d))...)
		}})
	}
	return out
}
