package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// marker is in the payload of every frame that this program builds, so that an ear knows it.
const marker = "bulkhead-demo-frame"

// wire is an interface opened for frames that no socket of the kernel's stack makes.
type wire struct {
	fd    int
	index int
	mac   net.HardwareAddr
	addr  netip.Addr // its IPv4 address
}

// openWire opens the namespace's only interface beside lo. Needs CAP_NET_RAW.
func openWire() (*wire, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 || len(i.HardwareAddr) != 6 {
			continue
		}
		fd, err := packetSocket(unix.ETH_P_ARP)
		if err != nil {
			return nil, err
		}
		w := &wire{fd: fd, index: i.Index, mac: i.HardwareAddr}
		addrs, err := i.Addrs()
		if err != nil {
			return nil, errors.Join(err, w.Close())
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
				w.addr = p.Addr()
			}
		}
		return w, nil
	}
	return nil, errors.New("no Ethernet interface in this namespace")
}

func (w *wire) Close() error { return unix.Close(w.fd) }

func packetSocket(ethertype int) (int, error) {
	var network [2]byte
	binary.BigEndian.PutUint16(network[:], uint16(ethertype))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(binary.NativeEndian.Uint16(network[:])))
	if err != nil {
		return 0, fmt.Errorf("open a packet socket: %w", err)
	}
	return fd, nil
}

// send puts a frame on the wire past every hook of the namespace's inet rules.
func (w *wire) send(parts ...gopacket.SerializableLayer) error {
	b := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(b, options, parts...); err != nil {
		return err
	}
	to := &unix.SockaddrLinklayer{Ifindex: w.index, Halen: 6}
	return unix.Sendto(w.fd, b.Bytes(), 0, to)
}

// resolve asks by ARP who has addr. The request tells our own address and is honest.
func (w *wire) resolve(addr netip.Addr) (net.HardwareAddr, error) {
	eth := &layers.Ethernet{SrcMAC: w.mac, DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeARP}
	arp := &layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation: layers.ARPRequest, SourceHwAddress: w.mac, SourceProtAddress: w.addr.AsSlice(),
		DstHwAddress: make([]byte, 6), DstProtAddress: addr.AsSlice()}
	if err := unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000}); err != nil {
		return nil, err
	}
	buf := make([]byte, 2048)
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
		if err := w.send(eth, arp); err != nil {
			return nil, err
		}
		n, _, err := unix.Recvfrom(w.fd, buf, 0)
		if err != nil {
			continue // nobody answered yet
		}
		p := gopacket.NewPacket(buf[:n], layers.LayerTypeEthernet, gopacket.Default)
		if a, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP); ok && a.Operation == layers.ARPReply {
			if from, _ := netip.AddrFromSlice(a.SourceProtAddress); from == addr {
				return a.SourceHwAddress, nil
			}
		}
	}
	return nil, fmt.Errorf("who has %s: no answer", addr)
}

// strike sends one UDP datagram and one TCP SYN to a port, both with the marker, from the address
// named.
func (w *wire) strike(from netip.Addr, to netip.AddrPort) error {
	mac, err := w.resolve(to.Addr())
	if err != nil {
		return err
	}
	eth := &layers.Ethernet{SrcMAC: w.mac, DstMAC: mac, EthernetType: layers.EthernetTypeIPv4}
	ip := func(p layers.IPProtocol) *layers.IPv4 {
		return &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Id: 4711, Protocol: p, SrcIP: from.AsSlice(), DstIP: to.Addr().AsSlice()}
	}
	tcp := &layers.TCP{SrcPort: 40000, DstPort: layers.TCPPort(to.Port()), Seq: 1, SYN: true, Window: 64240}
	ip4 := ip(layers.IPProtocolTCP)
	if err := tcp.SetNetworkLayerForChecksum(ip4); err != nil {
		return err
	}
	if err := w.send(eth, ip4, tcp, gopacket.Payload(marker)); err != nil {
		return err
	}
	udp := &layers.UDP{SrcPort: 40000, DstPort: layers.UDPPort(to.Port())}
	ip4 = ip(layers.IPProtocolUDP)
	if err := udp.SetNetworkLayerForChecksum(ip4); err != nil {
		return err
	}
	return w.send(eth, ip4, udp, gopacket.Payload(marker))
}
