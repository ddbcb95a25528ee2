package firewall

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

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
