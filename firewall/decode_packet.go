package firewall

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// decodePacket is what the headers of one logged packet say. Ports are zero where the packet has
// none or where they did not fit in what the kernel copied.
type decodePacket struct {
	src, dst netip.Addr
	protocol identity.Protocol
	sport    uint16
	dport    uint16 // the type for ICMP and ICMPv6
	flags    byte   // of TCP, byte 13 of its header; the type of the first chunk for SCTP
	length   uint64 // of the whole packet in bytes, however little of it was copied
	fragment bool   // a later fragment: it carries no transport header
	whole    bool   // everything above is as the sender wrote it
}

// decodeParser walks the headers of a packet with gopacket and reuses everything, so that a packet
// costs no allocation. It is for one goroutine.
//
// IPv4, ICMP, ICMPv6 and ARP are read by gopacket's own layers. Transport and IPv6 headers have
// layers of ours: gopacket's TCP layer refuses garbled options, which Linux ignores, so that a
// sender could hide a connection behind them; its IPv6 layers allocate for every option. What is
// inside a tunnel is not looked at: the outer packet is the one that was judged.
type decodeParser struct {
	ip4   decodeIPv4
	ip6   decodeIPv6
	ext   decodeExtension
	tcp   decodeTransport
	udp   decodeTransport
	sctp  decodeTransport
	icmp4 layers.ICMPv4
	icmp6 layers.ICMPv6
	arp   layers.ARP

	from4, from6, fromARP *gopacket.DecodingLayerParser
	layers                []gopacket.LayerType
}

func newDecodeParser() *decodeParser {
	p := &decodeParser{
		tcp:    decodeTransport{kind: layers.LayerTypeTCP, flagAt: 13},  // flags (RFC 9293, 3.1)
		udp:    decodeTransport{kind: layers.LayerTypeUDP, flagAt: 7},   // none; the header's last byte
		sctp:   decodeTransport{kind: layers.LayerTypeSCTP, flagAt: 12}, // type of the first chunk (RFC 9260, 3.2)
		layers: make([]gopacket.LayerType, 0, 16),
	}
	p.ip6.ext = &p.ext
	parser := func(first gopacket.LayerType, l ...gopacket.DecodingLayer) *gopacket.DecodingLayerParser {
		dlc := gopacket.DecodingLayerContainer(gopacket.DecodingLayerArray(nil))
		for _, d := range l {
			dlc = dlc.Put(d)
		}
		dlp := gopacket.NewDecodingLayerParser(first)
		dlp.SetDecodingLayerContainer(dlc)
		dlp.IgnoreUnsupported = true
		return dlp
	}
	p.from4 = parser(layers.LayerTypeIPv4, &p.ip4, &p.tcp, &p.udp, &p.sctp, &p.icmp4)
	p.from6 = parser(layers.LayerTypeIPv6, &p.ip6, &p.ext, &p.tcp, &p.udp, &p.sctp, &p.icmp6)
	p.fromARP = parser(layers.LayerTypeARP, &p.arp)
	return p
}

// packet reads a packet that starts at its network header. What could be read is in the answer also
// when whole is false.
func (p *decodeParser) packet(etherType uint16, data []byte) decodePacket {
	d := decodePacket{length: uint64(len(data))}
	switch layers.EthernetType(etherType) {
	case layers.EthernetTypeIPv4:
		p.internet(&d, p.from4, data)
	case layers.EthernetTypeIPv6:
		p.internet(&d, p.from6, data)
	case layers.EthernetTypeARP:
		d.whole = p.fromARP.DecodeLayers(data, &p.layers) == nil && len(p.arp.SourceProtAddress) == 4
		if d.whole {
			d.src = netip.AddrFrom4([4]byte(p.arp.SourceProtAddress))
			d.dst = netip.AddrFrom4([4]byte(p.arp.DstProtAddress))
		}
	default: // the ethertype is all there is to say
		d.whole = true
	}
	return d
}

// internet fills d from an IP packet.
func (p *decodeParser) internet(d *decodePacket, parser *gopacket.DecodingLayerParser, data []byte) {
	p.ext.reset()
	d.whole = parser.DecodeLayers(data, &p.layers) == nil
	reached := false // the transport header
	for _, l := range p.layers {
		switch l {
		case layers.LayerTypeIPv4:
			d.src, d.dst = netip.AddrFrom4([4]byte(p.ip4.SrcIP)), netip.AddrFrom4([4]byte(p.ip4.DstIP))
			d.protocol, d.length = identity.Protocol(p.ip4.Protocol), uint64(p.ip4.Length)
			d.fragment = p.ip4.FragOffset != 0
		case layers.LayerTypeIPv6:
			d.src, d.dst = p.ip6.src.Unmap(), p.ip6.dst.Unmap()
			d.protocol, d.fragment, d.length = p.ext.next, p.ext.fragment, p.ip6.length
			// An IPv4-mapped address is never right on the wire (RFC 4038, 4.2).
			d.whole = d.whole && !p.ip6.src.Is4In6() && !p.ip6.dst.Is4In6()
		case layers.LayerTypeICMPv4:
			reached, d.dport = true, uint16(p.icmp4.TypeCode.Type())
		case layers.LayerTypeICMPv6:
			reached, d.dport = true, uint16(p.icmp6.TypeCode.Type())
		case layers.LayerTypeTCP:
			reached = p.tcp.into(d)
		case layers.LayerTypeUDP:
			reached = p.udp.into(d)
		case layers.LayerTypeSCTP:
			reached = p.sctp.into(d)
		}
	}
	if needs := d.protocol.HasPorts() || d.protocol.IsICMP(); needs && !reached && !d.fragment {
		d.whole = false
	}
}

// Errors of the layers below are only ever counted.
var errDecodeShort = errors.New("header is cut off")

// decodeLayerOf names the layer of a protocol that is read here; anything else ends the walk.
func decodeLayerOf(p identity.Protocol) gopacket.LayerType {
	switch p {
	case identity.TCP:
		return layers.LayerTypeTCP
	case identity.UDP:
		return layers.LayerTypeUDP
	case identity.SCTP:
		return layers.LayerTypeSCTP
	}
	return gopacket.LayerTypeZero
}

// decodeIPv4 is gopacket's layer, with two differences: garbled options are no reason to refuse a
// packet, and the first fragment's transport header is read.
type decodeIPv4 struct{ layers.IPv4 }

func (ip *decodeIPv4) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	err := ip.IPv4.DecodeFromBytes(data, df)
	if err == nil || len(data) < 20 {
		return err
	}
	header := int(ip.IHL) * 4
	if ip.Version != 4 || header < 20 || header > len(data) || int(ip.Length) < header {
		return err
	}
	ip.BaseLayer = layers.BaseLayer{Contents: data[:header], Payload: data[header:]}
	return nil
}

func (ip *decodeIPv4) CanDecode() gopacket.LayerClass { return layers.LayerTypeIPv4 }

func (ip *decodeIPv4) NextLayerType() gopacket.LayerType {
	switch {
	case ip.FragOffset != 0:
		return gopacket.LayerTypeZero
	case ip.Protocol == layers.IPProtocolICMPv4:
		return layers.LayerTypeICMPv4
	}
	return decodeLayerOf(identity.Protocol(ip.Protocol))
}

// decodeIPv6 is the fixed header of RFC 8200, section 3.
type decodeIPv6 struct {
	layers.BaseLayer
	src, dst netip.Addr
	length   uint64 // with this header, in bytes
	ext      *decodeExtension
}

func (ip *decodeIPv6) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	if len(data) < 40 || data[0]>>4 != 6 {
		df.SetTruncated()
		return errDecodeShort
	}
	ip.src, ip.dst = netip.AddrFrom16([16]byte(data[8:24])), netip.AddrFrom16([16]byte(data[24:40]))
	ip.length = 40 + uint64(binary.BigEndian.Uint16(data[4:6]))
	ip.BaseLayer = layers.BaseLayer{Contents: data[:40], Payload: data[40:]}
	ip.ext.next = identity.Protocol(data[6])
	return nil
}

func (ip *decodeIPv6) CanDecode() gopacket.LayerClass    { return layers.LayerTypeIPv6 }
func (ip *decodeIPv6) NextLayerType() gopacket.LayerType { return ip.ext.NextLayerType() }

// decodeExtension walks the extension headers that the kernel itself walks to find the transport
// (ipv6_ext_hdr in net/ipv6/exthdrs_core.c). Each is at least eight bytes, so the walk ends.
type decodeExtension struct {
	layers.BaseLayer
	next     identity.Protocol // of the header last read
	fragment bool              // a later fragment
}

func (x *decodeExtension) reset() { x.next, x.fragment = 0, false }

func (x *decodeExtension) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	if len(data) < 8 {
		df.SetTruncated()
		return errDecodeShort
	}
	size := (int(data[1]) + 1) * 8
	switch layers.IPProtocol(x.next) {
	case layers.IPProtocolIPv6Fragment:
		size = 8 // its second byte is reserved
		x.fragment = binary.BigEndian.Uint16(data[2:4])&^7 != 0
	case layers.IPProtocolAH:
		size = (int(data[1]) + 2) * 4 // RFC 4302, 2.2
	}
	x.next = identity.Protocol(data[0])
	if size > len(data) {
		df.SetTruncated()
		return errDecodeShort
	}
	x.BaseLayer = layers.BaseLayer{Contents: data[:size], Payload: data[size:]}
	return nil
}

func (x *decodeExtension) CanDecode() gopacket.LayerClass {
	return decodeExtensionClass
}

var decodeExtensionClass = gopacket.NewLayerClass([]gopacket.LayerType{
	layers.LayerTypeIPv6HopByHop, layers.LayerTypeIPv6Destination, layers.LayerTypeIPv6Routing,
	layers.LayerTypeIPv6Fragment, layers.LayerTypeIPSecAH,
})

func (x *decodeExtension) NextLayerType() gopacket.LayerType {
	if x.fragment {
		return gopacket.LayerTypeZero
	}
	switch layers.IPProtocol(x.next) {
	case layers.IPProtocolIPv6HopByHop:
		return layers.LayerTypeIPv6HopByHop
	case layers.IPProtocolIPv6Destination:
		return layers.LayerTypeIPv6Destination
	case layers.IPProtocolIPv6Routing:
		return layers.LayerTypeIPv6Routing
	case layers.IPProtocolIPv6Fragment:
		return layers.LayerTypeIPv6Fragment
	case layers.IPProtocolAH:
		return layers.LayerTypeIPSecAH
	case layers.IPProtocolICMPv6:
		return layers.LayerTypeICMPv6
	}
	return decodeLayerOf(x.next)
}

// decodeTransport reads the ports of TCP, UDP or SCTP, and the byte that says whether a packet is a
// birth.
type decodeTransport struct {
	kind         gopacket.LayerType
	flagAt       int // where that byte is; the header must reach so far
	sport, dport uint16
	flags        byte
}

func (t *decodeTransport) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	if len(data) <= t.flagAt {
		df.SetTruncated()
		return errDecodeShort
	}
	t.sport, t.dport = binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:])
	t.flags = data[t.flagAt]
	return nil
}

func (t *decodeTransport) into(d *decodePacket) bool {
	d.sport, d.dport, d.flags = t.sport, t.dport, t.flags
	return true
}

func (t *decodeTransport) CanDecode() gopacket.LayerClass    { return t.kind }
func (t *decodeTransport) NextLayerType() gopacket.LayerType { return gopacket.LayerTypeZero }
func (t *decodeTransport) LayerPayload() []byte              { return nil }
