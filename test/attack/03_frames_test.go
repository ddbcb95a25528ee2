package attack

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/alert"
)

// TestThreat3: A2, code with CAP_NET_RAW (the default of most runtimes), sends frames of its own.
// They are dropped before they reach the host's bridge or any other workload; whoever sends them is
// told of by the guard's counters and by spoof and raw-socket alerts (THREATS row 3).
func TestThreat3(t *testing.T) {
	threat(t, 3, slices.Concat(waysOut(), spoofing(), segments(), links(), liars(), neighbours(), messages(), headers(), tunnels(), besideUs()))
}

// raw is a trick of frames that carry the workload's own sender and that its ruleset would not have
// let out.
func raw(name string, frames func(a *attempt) [][]byte) trick {
	return trick{name: name, counter: "raw", alert: alert.RawSocket, run: func(a *attempt) error {
		return a.frames(byPacket, frames(a)...)
	}}
}

// spoofed is a trick of frames that no workload may send whatever policy says.
func spoofed(name string, frames func(a *attempt) [][]byte) trick {
	tr := raw(name, frames)
	tr.counter, tr.alert = "spoofed", alert.Spoof
	return tr
}

// waysOut are the kernel's ways past the IP stack.
func waysOut() []trick {
	var out []trick
	denied := func(a *attempt) [][]byte {
		return [][]byte{a.udp(false, a.victim, 53, a.token), a.udp(true, a.victim, 53, a.token)}
	}
	for _, how := range []string{byPacket, byBypass, byXDP} {
		tr := raw("af_"+how, nil)
		tr.run = func(a *attempt) error { return a.frames(how, denied(a)...) }
		out = append(out, tr)
	}
	// This one passes the namespace's own rules, which tell of it.
	return append(out, trick{name: "raw_ip", alert: alert.DeniedBy, run: func(a *attempt) error { return a.frames(byRaw, denied(a)...) }})
}

// addresses are senders that are not the attacker's, by name; both families.
func (w *arena) addresses() map[string][2]netip.Addr {
	ip := netip.MustParseAddr
	return map[string][2]netip.Addr{
		"peer":        {w.peer.v4, w.peer.v6},
		"victim":      {w.victim.v4, w.victim.v6},
		"node":        {w.node.v4, w.node.v6},
		"neighbour":   {ip("10.66.0.77"), w.peer.link},
		"loopback":    {ip("127.0.0.1"), ip("::1")},
		"unspecified": {ip("0.0.0.0"), ip("::")},
		"multicast":   {ip("224.0.0.1"), ip("ff02::1")},
		"mapped":      {ip("255.255.255.255"), netip.AddrFrom16(w.peer.v4.As16())},
		"world":       {ip("198.51.100.9"), ip("2001:db8::9")},
	}
}

// spoofing is to send as somebody else.
func spoofing() []trick {
	var out []trick
	for _, who := range []string{"peer", "victim", "node", "neighbour", "loopback", "unspecified", "multicast", "mapped", "world"} {
		out = append(out, spoofed("spoof_ip_"+who, func(a *attempt) (frames [][]byte) {
			for _, src := range a.addresses()[who] {
				dst := a.victim.addr(src.Is6())
				typ, packet := uint16(typeIPv4), func(proto byte, b []byte) []byte { return ip4(src, dst, proto, nil, b) }
				if src.Is6() {
					typ, packet = typeIPv6, func(proto byte, b []byte) []byte { return ip6(src, dst, proto, b) }
				}
				frames = append(frames,
					ether(a.attacker.mac, a.victim.mac, typ, packet(protoTCP, tcpHead(src, dst, 40000, 80, flagSYN, a.token))),
					ether(a.attacker.mac, a.victim.mac, typ, packet(protoUDP, udpHead(src, dst, 40000, 53, a.token))))
			}
			return frames
		}))
	}
	// With the allowed destination, so that nothing but the MAC is wrong; then everything as the peer's.
	for name, mac := range map[string]func(a *attempt) net.HardwareAddr{
		"spoof_mac_peer":      func(a *attempt) net.HardwareAddr { return a.peer.mac },
		"spoof_mac_node":      func(a *attempt) net.HardwareAddr { return a.node.mac },
		"spoof_mac_unknown":   func(*attempt) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, 0x77} },
		"spoof_mac_multicast": func(*attempt) net.HardwareAddr { return net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1} },
	} {
		tr := spoofed(name, func(a *attempt) (frames [][]byte) {
			for _, f := range [][]byte{a.udp(false, a.outsider, 5353, a.token), a.udp(true, a.outsider, 5353, a.token)} {
				copy(f[6:], mac(a))
				frames = append(frames, f)
			}
			return frames
		})
		if name == "spoof_mac_multicast" {
			tr.harmless = "a bridge takes no frame from a multicast sender"
		}
		out = append(out, tr)
	}
	slices.SortStableFunc(out[len(out)-4:], func(a, b trick) int { return bytes.Compare([]byte(a.name), []byte(b.name)) })
	return append(out, spoofed("spoof_all_of_peer", func(a *attempt) [][]byte {
		return [][]byte{ether(a.peer.mac, a.victim.mac, typeIPv4,
			ip4(a.peer.v4, a.victim.v4, protoTCP, nil, tcpHead(a.peer.v4, a.victim.v4, 40000, 80, flagSYN, a.token)))}
	}))
}

// segments are TCP segments that begin no connection, or that pretend to be of one.
func segments() []trick {
	var out []trick
	for _, s := range []struct {
		name         string
		sport, dport uint16
		flags        byte
	}{
		{"tcp_syn", 40000, 80, flagSYN},
		{"tcp_without_syn", 40000, 80, flagPSH | flagACK},
		{"tcp_ack_scan", 40000, 22, flagACK},
		{"tcp_forged_syn_ack", 80, 40000, flagSYN | flagACK},
		{"tcp_fin_scan", 40000, 80, flagFIN},
		{"tcp_null_scan", 40000, 80, 0},
		{"tcp_xmas_scan", 40000, 80, flagFIN | flagPSH | flagURG},
		{"tcp_syn_fin", 40000, 80, flagSYN | flagFIN},
		{"tcp_syn_ack_urg_psh_fin", 80, 80, 0xff &^ flagRST},
	} {
		out = append(out, raw(s.name, func(a *attempt) [][]byte {
			return [][]byte{a.tcp(false, a.victim, s.sport, s.dport, s.flags, a.token), a.tcp(true, a.victim, s.sport, s.dport, s.flags, a.token)}
		}))
	}
	rst := raw("tcp_reset", func(a *attempt) [][]byte {
		return [][]byte{a.tcp(false, a.victim, 40000, 80, flagRST, a.token), a.tcp(true, a.victim, 80, 40000, flagRST|flagACK, a.token)}
	})
	rst.counter, rst.alert = "late", "" // the kernel sends such answers by itself: no alert
	return append(out, rst, raw("udp_from_server_port", func(a *attempt) [][]byte {
		return [][]byte{a.packet(false, a.victim, protoUDP, udpHead(a.attacker.v4, a.victim.v4, 53, 40000, a.token)),
			a.packet(true, a.victim, protoUDP, udpHead(a.attacker.v6, a.victim.v6, 53, 40000, a.token))}
	}))
}
