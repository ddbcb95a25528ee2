package attack

import (
	"encoding/binary"
	"net"
)

// Frames that are no plain IP over Ethernet, or lie about being it.

// tag is a VLAN tag, with the type of what follows it.
func tag(id, inner uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, id), inner)
}

// links are frames of other protocols, to who may be sent to where that could make a difference.
func links() []trick {
	allowed := func(a *attempt) []byte { return a.udp(false, a.outsider, 5353, a.token)[14:] }
	allowed6 := func(a *attempt) []byte { return a.udp(true, a.outsider, 5353, a.token)[14:] }
	wrapped := func(name string, typ uint16, head []byte) trick {
		return spoofed(name, func(a *attempt) [][]byte {
			return [][]byte{ether(a.attacker.mac, a.outsider.mac, typ, head, allowed(a))}
		})
	}
	out := []trick{
		wrapped("vlan", typeVLAN, tag(7, typeIPv4)),
		wrapped("vlan_priority_only", typeVLAN, tag(0xa000, typeIPv4)),
		wrapped("vlan_in_vlan", typeVLAN, append(tag(7, typeVLAN), tag(8, typeIPv4)...)),
		wrapped("qinq", typeQinQ, append(tag(7, typeVLAN), tag(8, typeIPv4)...)),
		wrapped("qinq_single", typeQinQ, tag(7, typeIPv4)),
		wrapped("ethertype_experimental", 0x88b5, nil),
		wrapped("ethertype_mpls", 0x8847, []byte{0, 1, 1, 64}),
		wrapped("ethertype_pppoe", 0x8864, []byte{0x11, 0, 0, 1, 0, 60, 0, 0x21}),
		wrapped("ethertype_macsec", 0x88e5, nil),
		wrapped("ethertype_rarp", 0x8035, nil),
		wrapped("ethertype_zero", 0, nil),
		wrapped("llc", 100, []byte{0xfe, 0xfe, 3}),
		wrapped("llc_snap_ip", 100, []byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 0}),
		spoofed("vlan_ipv6", func(a *attempt) [][]byte {
			return [][]byte{ether(a.attacker.mac, a.outsider.mac, typeVLAN, tag(7, typeIPv6), allowed6(a))}
		}),
	}
	// To addresses that a bridge keeps to itself (IEEE 802.1D, 7.12.6): it may be told by them.
	for _, l := range []struct {
		name string
		last byte
		typ  uint16
	}{{"spanning_tree", 0, 60}, {"lldp", 0x0e, 0x88cc}, {"eapol", 3, 0x888e}} {
		tr := spoofed("bridge_"+l.name, func(a *attempt) [][]byte {
			return [][]byte{ether(a.attacker.mac, net.HardwareAddr{1, 0x80, 0xc2, 0, 0, l.last}, l.typ, []byte{0x42, 0x42, 3}, a.token)}
		})
		if l.name != "spanning_tree" {
			tr.harmless = "a bridge hands frames to its own address on to nobody"
		}
		out = append(out, tr)
	}
	return out
}

// liars are IP packets whose headers say what is not so. The victim's IP stack takes few of them;
// none may reach its interface.
func liars() []trick {
	four := func(a *attempt) []byte { return a.udp(false, a.victim, 53, a.token) }
	six := func(a *attempt) []byte { return a.udp(true, a.victim, 53, a.token) }
	type change struct {
		name  string
		frame func(*attempt) []byte
		lie   func(a *attempt, f []byte) []byte
	}
	at := func(i int, b ...byte) func(*attempt, []byte) []byte {
		return func(_ *attempt, f []byte) []byte { copy(f[14+i:], b); return f }
	}
	var out []trick
	for _, c := range []change{
		{"ip4_version_6", four, at(0, 0x65)},
		{"ip4_version_0", four, at(0, 0x05)},
		{"ip4_header_of_4_words", four, at(0, 0x44)},
		{"ip4_header_of_15_words", four, at(0, 0x4f)},
		{"ip4_header_of_0_words", four, at(0, 0x40)},
		{"ip4_longer_than_frame", four, at(2, 0xff, 0xff)},
		{"ip4_shorter_than_header", four, at(2, 0, 10)},
		{"ip4_length_0", four, at(2, 0, 0)},
		{"ip4_cut_behind_header", four, at(2, 0, 20)},
		{"ip4_half_a_udp_header", four, at(2, 0, 24)},
		{"ip4_wrong_checksum", four, at(10, 0xde, 0xad)},
		{"ip4_protocol_0", four, at(9, 0)},
		{"ip4_protocol_255", four, at(9, 255)},
		{"ip6_version_4", six, at(0, 0x45)},
		{"ip6_longer_than_frame", six, at(4, 0xff, 0xff)},
		{"ip6_length_0", six, at(4, 0, 0)},
		{"ip6_hop_limit_0", six, at(7, 0)},
	} {
		out = append(out, raw(c.name, func(a *attempt) [][]byte { return [][]byte{c.lie(a, c.frame(a))} }))
	}
	// One family's packet under the other's type: where the sender is looked for, something else stands.
	out = append(out,
		spoofed("ip6_as_ip4", func(a *attempt) [][]byte {
			return [][]byte{ether(a.attacker.mac, a.victim.mac, typeIPv4, six(a)[14:])}
		}),
		spoofed("ip4_as_ip6", func(a *attempt) [][]byte {
			return [][]byte{ether(a.attacker.mac, a.victim.mac, typeIPv6, four(a)[14:])}
		}),
		raw("ip4_options", func(a *attempt) [][]byte {
			options := []byte{0x83, 7, 4, 0, 0, 0, 0, 0} // loose source route (RFC 791, 3.1), over who is allowed
			copy(options[3:], a.victim.v4.AsSlice())
			return [][]byte{ether(a.attacker.mac, a.victim.mac, typeIPv4, ip4(a.attacker.v4, a.victim.v4, protoUDP, options,
				udpHead(a.attacker.v4, a.victim.v4, 40000, 5353, a.token)))}
		}))
	short := spoofed("frame_of_a_header_alone", func(a *attempt) [][]byte {
		return [][]byte{append(append(append([]byte{}, a.victim.mac...), a.attacker.mac...), 8, 0),
			append(append(append([]byte{}, a.victim.mac...), a.attacker.mac...), 8, 0, 0x45, 0, 0, 20, 0, 0, 0, 0)}
	})
	short.wins = func(a *attempt, at *host, b []byte) bool {
		return len(b) < 40 && len(b) >= 14 && net.HardwareAddr(b[6:12]).String() == a.attacker.mac.String()
	}
	return append(out, short)
}
