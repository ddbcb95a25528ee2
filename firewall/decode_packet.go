package firewall

import (
	"encoding/binary"
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
	sport    uint16 // the identifier for echo requests and replies
	dport    uint16 // the type for ICMP and ICMPv6
	flags    byte   // of TCP, byte 13 of its header; the type of the first chunk for SCTP
	length   uint64 // of the whole packet in bytes, however little of it was copied
	part     uint16 // the third part of the key under which our rules remember the packet, see SeenSet
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

	key logKey // of the message that decodeRecord read last
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
	var rest []byte  // behind the last header that was read
	for _, l := range p.layers {
		switch l {
		case layers.LayerTypeIPv4:
			d.src, d.dst = netip.AddrFrom4([4]byte(p.ip4.SrcIP)), netip.AddrFrom4([4]byte(p.ip4.DstIP))
			d.protocol, d.length = identity.Protocol(p.ip4.Protocol), uint64(p.ip4.Length)
			d.fragment, rest = p.ip4.FragOffset != 0, p.ip4.Payload
		case layers.LayerTypeIPv6:
			d.src, d.dst = p.ip6.src.Unmap(), p.ip6.dst.Unmap()
			d.protocol, d.fragment, d.length = p.ext.next, p.ext.fragment, p.ip6.length
			// An IPv4-mapped address is never right on the wire (RFC 4038, 4.2).
			d.whole, rest = d.whole && !p.ip6.src.Is4In6() && !p.ip6.dst.Is4In6(), p.ip6.Payload
		case layers.LayerTypeICMPv4:
			reached, d.dport, d.part = true, uint16(p.icmp4.TypeCode.Type()), uint16(p.icmp4.TypeCode)
			if t := p.icmp4.TypeCode.Type(); t == layers.ICMPv4TypeEchoRequest || t == layers.ICMPv4TypeEchoReply {
				d.sport = p.icmp4.Id
			}
		case layers.LayerTypeICMPv6:
			reached, d.dport, d.part = true, uint16(p.icmp6.TypeCode.Type()), uint16(p.icmp6.TypeCode)
			t, b := p.icmp6.TypeCode.Type(), p.icmp6.LayerPayload()
			if (t == layers.ICMPv6TypeEchoRequest || t == layers.ICMPv6TypeEchoReply) && len(b) >= 2 {
				d.sport = binary.BigEndian.Uint16(b)
			}
		case layers.LayerTypeTCP:
			reached = p.tcp.into(d)
		case layers.LayerTypeUDP:
			reached = p.udp.into(d)
		case layers.LayerTypeSCTP:
			reached = p.sctp.into(d)
		default: // an extension header
			rest = p.ext.Payload
		}
	}
	switch {
	case d.protocol.HasPorts():
		d.part = d.dport
	case !d.protocol.IsICMP() && len(rest) >= 4:
		d.part = binary.BigEndian.Uint16(rest[2:]) // `th dport` of whatever it is
	}
	if needs := d.protocol.HasPorts() || d.protocol.IsICMP(); needs && !reached && !d.fragment {
		d.whole = false
	}
}
