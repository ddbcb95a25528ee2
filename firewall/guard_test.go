package firewall

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// marker is in every frame of these tests, so that the listener knows them.
var marker = []byte("bulkhead-frame-")

// forger builds frames as a program with CAP_NET_RAW in the workload would.
type forger struct {
	t        testing.TB
	from, to *testWorkload
	mac      net.HardwareAddr
	v4, v6   netip.Addr
}

func (f forger) build(l ...gopacket.SerializableLayer) []byte {
	f.t.Helper()
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...); err != nil {
		f.t.Fatal(err)
	}
	return buf.Bytes()
}

func (f forger) ether(t layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: f.mac, DstMAC: f.to.ifc.MAC, EthernetType: t}
}

func (f forger) ip4(p layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: p, SrcIP: f.v4.AsSlice(), DstIP: f.to.v4.AsSlice()}
}

func (f forger) ip6(p layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: p, SrcIP: f.v6.AsSlice(), DstIP: f.to.v6.AsSlice()}
}

func (f forger) udp(port uint16) []byte {
	ip, u := f.ip4(layers.IPProtocolUDP), &layers.UDP{SrcPort: 4000, DstPort: layers.UDPPort(port)}
	_ = u.SetNetworkLayerForChecksum(ip)
	return f.build(f.ether(layers.EthernetTypeIPv4), ip, u, gopacket.Payload(marker))
}

func (f forger) udp6(port uint16) []byte {
	ip, u := f.ip6(layers.IPProtocolUDP), &layers.UDP{SrcPort: 4000, DstPort: layers.UDPPort(port)}
	_ = u.SetNetworkLayerForChecksum(ip)
	return f.build(f.ether(layers.EthernetTypeIPv6), ip, u, gopacket.Payload(marker))
}

func (f forger) tcp(sport, dport uint16, syn, ack bool) []byte {
	ip := f.ip4(layers.IPProtocolTCP)
	s := &layers.TCP{SrcPort: layers.TCPPort(sport), DstPort: layers.TCPPort(dport), SYN: syn, ACK: ack, Window: 1000}
	_ = s.SetNetworkLayerForChecksum(ip)
	return f.build(f.ether(layers.EthernetTypeIPv4), ip, s, gopacket.Payload(marker))
}

func (f forger) tagged(port uint16) []byte {
	ip, u := f.ip4(layers.IPProtocolUDP), &layers.UDP{SrcPort: 4000, DstPort: layers.UDPPort(port)}
	_ = u.SetNetworkLayerForChecksum(ip)
	return f.build(f.ether(layers.EthernetTypeDot1Q), &layers.Dot1Q{VLANIdentifier: 7, Type: layers.EthernetTypeIPv4}, ip, u, gopacket.Payload(marker))
}

func (f forger) arp(mac net.HardwareAddr, ip netip.Addr) []byte {
	a := &layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation: layers.ARPReply, SourceHwAddress: mac, SourceProtAddress: ip.AsSlice(),
		DstHwAddress: f.to.ifc.MAC, DstProtAddress: f.to.v4.AsSlice()}
	return f.build(f.ether(layers.EthernetTypeARP), a, gopacket.Payload(marker))
}

// advert has no room for the marker: an advertisement that says more than it must is dropped.
func (f forger) advert(target netip.Addr) []byte {
	ip, i := f.ip6(layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(136, 0)}
	_ = i.SetNetworkLayerForChecksum(ip)
	return f.build(f.ether(layers.EthernetTypeIPv6), ip, i,
		&layers.ICMPv6NeighborAdvertisement{Flags: 0x20, TargetAddress: target.AsSlice()})
}

func (f forger) icmp6(typ uint8) []byte {
	ip, i := f.ip6(layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(typ, 0)}
	_ = i.SetNetworkLayerForChecksum(ip)
	return f.build(f.ether(layers.EthernetTypeIPv6), ip, i, gopacket.Payload(append(make([]byte, 32), marker...)))
}

// sniffer hears every frame that reaches the workload.
func (w *testWorkload) sniffer(t testing.TB) int {
	t.Helper()
	fd := -1
	err := Enter(w.path, func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0x0300) // ETH_P_ALL, network order
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// heard says whether a frame with the marker comes in time, or one of those given.
func heard(fd int, patience time.Duration, frames ...[]byte) bool {
	buf := make([]byte, 9000)
	for end := time.Now().Add(patience); ; {
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		tv := unix.NsecToTimeval(int64(left))
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == nil && (bytes.Contains(buf[:n], marker) || slices.ContainsFunc(frames, func(f []byte) bool { return bytes.HasPrefix(buf[:n], f) })) {
			return true
		}
	}
}

// TestFrames sends frames past the namespace's own rules. What may not leave must not reach a
// neighbour; what the namespace would have let out itself arrives.
func TestFrames(t *testing.T) {
	node := newTestNode(t)
	attacker, victim := node.workload(t), node.workload(t)
	sides := both(
		egress(testEntry(victim.v4.String(), identity.UDP, 53, 53), testEntry(victim.v6.String(), identity.UDP, 53, 53)),
		ingress(testEntry(victim.v4.String(), identity.TCP, 80, 80)))
	own := forger{t, attacker, victim, attacker.ifc.MAC, attacker.v4, attacker.v6}
	otherMAC, otherIP := own, own
	otherMAC.mac = net.HardwareAddr{2, 0, 0, 0, 0, 0x77}
	otherIP.v4, otherIP.v6 = netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd77::1")
	rows := []struct {
		name            string
		frame           []byte
		learns, enforce bool // arrives
	}{
		{"allowed UDP", own.udp(53), true, true},
		{"allowed UDP over IPv6", own.udp6(53), true, true},
		{"UDP to another port", own.udp(99), true, false},
		{"UDP over IPv6 to another port", own.udp6(99), true, false},
		{"TCP ACK out of the blue", own.tcp(4000, 99, false, true), true, false},
		{"TCP SYN from the served port", own.tcp(80, 99, true, false), true, false},
		{"TCP answer from the served port", own.tcp(80, 99, true, true), true, true},
		{"TCP answer from another port", own.tcp(81, 99, true, true), true, false},
		{"somebody else's IPv4", otherIP.udp(53), false, false},
		{"somebody else's IPv6", otherIP.udp6(53), false, false},
		{"somebody else's MAC", otherMAC.udp(53), false, false},
		{"VLAN tag", own.tagged(53), false, false},
		{"own ARP", own.arp(own.mac, own.v4), true, true},
		{"ARP for somebody else's address", own.arp(own.mac, otherIP.v4), false, false},
		{"ARP with somebody else's MAC", own.arp(otherMAC.mac, own.v4), false, false},
		{"own neighbour advertisement", own.advert(own.v6), true, true},
		{"own advertisement with more behind it", append(own.advert(own.v6)[:18], append([]byte{0, 24 + 15}, append(own.advert(own.v6)[20:], marker...)...)...), false, false},
		{"advertisement of somebody else's address", own.advert(otherIP.v6), false, false},
		{"router advertisement", own.icmp6(134), false, false},
		{"redirect", own.icmp6(137), false, false},
		{"unknown ethertype", own.build(own.ether(0x88b5), gopacket.Payload(marker)), false, false},
	}
	for _, guarded := range []bool{true, false} {
		if !guarded {
			if err := attacker.ns.Remove(); err != nil {
				t.Fatal(err)
			}
			attacker.ns = nil
			attacker.unguarded()
		}
		for _, mode := range []policy.Mode{policy.Learn, policy.AlertMode, policy.Enforce} {
			attacker.apply(t, mode, sides)
			for _, row := range rows {
				t.Run(fmt.Sprintf("guarded=%v/%s/%s", guarded, mode, row.name), func(t *testing.T) {
					want := row.learns
					if mode == policy.Enforce {
						want = row.enforce
					}
					ear := victim.sniffer(t)
					testFrame(t, attacker.path, "eth0", row.frame)
					if got := heard(ear, patience(want), row.frame); got != want {
						t.Errorf("arrived: %v, want %v", got, want)
					}
				})
			}
		}
	}
}
