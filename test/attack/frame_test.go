package attack

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// Frames are put together from bytes here, not by a library: most of them lie somewhere.

// Ethernet types (IEEE 802 Numbers, IANA) and IP protocols (Protocol Numbers, IANA).
const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeVLAN = 0x8100
	typeQinQ = 0x88a8
	typeIPv6 = 0x86dd

	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
	protoSCTP   = 132
)

// ether puts an Ethernet header before a payload, and pads to the shortest frame there is.
func ether(src, dst net.HardwareAddr, typ uint16, payload ...[]byte) []byte {
	b := append(append([]byte{}, dst...), src...)
	b = binary.BigEndian.AppendUint16(b, typ)
	for _, p := range payload {
		b = append(b, p...)
	}
	for len(b) < 60 {
		b = append(b, 0)
	}
	return b
}

// sum is the Internet checksum (RFC 1071).
func sum(parts ...[]byte) uint16 {
	var n uint32
	odd := false
	for _, p := range parts {
		for _, x := range p {
			if odd {
				n += uint32(x)
			} else {
				n += uint32(x) << 8
			}
			odd = !odd
		}
	}
	for n>>16 != 0 {
		n = n&0xffff + n>>16
	}
	return ^uint16(n)
}

// ip4 is an IPv4 packet with options, which must be whole words.
func ip4(src, dst netip.Addr, proto byte, options []byte, payload []byte) []byte {
	h := make([]byte, 20, 20+len(options)+len(payload))
	h[0] = 0x45 + byte(len(options)/4)
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(options)+len(payload)))
	h[8], h[9] = 64, proto
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	h = append(h, options...)
	binary.BigEndian.PutUint16(h[10:], sum(h))
	return append(h, payload...)
}

// fragment4 makes a packet of ip4 one fragment: offset in bytes, a multiple of 8.
func fragment4(packet []byte, id uint16, offset int, more bool) []byte {
	p := append([]byte{}, packet...)
	n := uint16(offset / 8)
	if more {
		n |= 0x2000
	}
	binary.BigEndian.PutUint16(p[4:], id)
	binary.BigEndian.PutUint16(p[6:], n)
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], sum(p[:int(p[0]&15)*4]))
	return p
}

// ip6 is an IPv6 packet; next is the type of its payload's first header.
func ip6(src, dst netip.Addr, next byte, payload ...[]byte) []byte {
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, next, 255
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	n := 0
	for _, p := range payload {
		h = append(h, p...)
		n += len(p)
	}
	binary.BigEndian.PutUint16(h[4:], uint16(n))
	return h
}

// pseudo is the header that transports sum up with them (RFC 9293, 3.1; RFC 8200, 8.1).
func pseudo(src, dst netip.Addr, proto byte, n int) []byte {
	b := append(src.AsSlice(), dst.AsSlice()...)
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	return append(b, 0, 0, 0, proto)
}

// udpHead is a UDP datagram.
func udpHead(src, dst netip.Addr, sport, dport uint16, data []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, sport)
	b = binary.BigEndian.AppendUint16(b, dport)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(data)))
	b = append(append(b, 0, 0), data...)
	s := sum(pseudo(src, dst, protoUDP, len(b)), b)
	if s == 0 {
		s = 0xffff
	}
	binary.BigEndian.PutUint16(b[6:], s)
	return b
}

// Flags of a TCP segment.
const (
	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagPSH = 0x08
	flagACK = 0x10
	flagURG = 0x20
)

// tcpHead is a TCP segment without options.
func tcpHead(src, dst netip.Addr, sport, dport uint16, flags byte, data []byte) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	binary.BigEndian.PutUint32(b[4:], 0x1234567)
	if flags&flagACK != 0 {
		binary.BigEndian.PutUint32(b[8:], 0x7654321)
	}
	b[12], b[13] = 0x50, flags
	binary.BigEndian.PutUint16(b[14:], 0xffff)
	b = append(b, data...)
	binary.BigEndian.PutUint16(b[16:], sum(pseudo(src, dst, protoTCP, len(b)), b))
	return b
}

// icmpHead is an ICMP message of either family: type, code, the four bytes behind the checksum, data.
func icmpHead(src, dst netip.Addr, typ, code byte, rest [4]byte, data []byte) []byte {
	b := append([]byte{typ, code, 0, 0, rest[0], rest[1], rest[2], rest[3]}, data...)
	s := sum(b)
	if src.Is6() {
		s = sum(pseudo(src, dst, protoICMPv6, len(b)), b)
	}
	binary.BigEndian.PutUint16(b[2:], s)
	return b
}

// packet is a frame from the attacker to a host with its true addresses.
func (w *arena) packet(v6 bool, to *host, proto byte, payload []byte) []byte {
	return w.packetFrom(w.attacker, v6, to, proto, payload)
}

func (w *arena) packetFrom(from *host, v6 bool, to *host, proto byte, payload []byte) []byte {
	if v6 {
		return ether(from.mac, to.mac, typeIPv6, ip6(from.v6, to.v6, proto, payload))
	}
	return ether(from.mac, to.mac, typeIPv4, ip4(from.v4, to.v4, proto, nil, payload))
}

// udp and tcp are frames from the attacker to a host, true but for what policy says of them.
func (w *arena) udp(v6 bool, to *host, port uint16, data []byte) []byte {
	return w.packet(v6, to, protoUDP, udpHead(w.attacker.addr(v6), to.addr(v6), 40000, port, data))
}

func (w *arena) tcp(v6 bool, to *host, sport, dport uint16, flags byte, data []byte) []byte {
	return w.packet(v6, to, protoTCP, tcpHead(w.attacker.addr(v6), to.addr(v6), sport, dport, flags, data))
}
