package firewall

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// dnsPacket is a packet from a DNS server: its ends and what it carries. payload refers to the buffer
// that was read.
type dnsPacket struct {
	server  netip.Addr
	port    uint16 // the client's
	tcp     bool
	flags   byte   // of TCP
	seq     uint32 // of TCP
	payload []byte
	partial bool // a first fragment
}

// readDNSPacket reads an IP packet with UDP or TCP in it. It is false for anything else, and for later
// fragments. What a first fragment carries is cut off.
func readDNSPacket(b []byte) (p dnsPacket, ok bool) {
	if len(b) == 0 {
		return p, false
	}
	var protocol byte
	switch b[0] >> 4 {
	case 4:
		if len(b) < 20 {
			return p, false
		}
		header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
		more, offset := binary.BigEndian.Uint16(b[6:])&0x2000, binary.BigEndian.Uint16(b[6:])&0x1fff
		if header < 20 || header > len(b) || offset != 0 {
			return p, false
		}
		p.partial = more != 0
		p.server, protocol = netip.AddrFrom4([4]byte(b[12:16])), b[9]
		// Zero for what is longer than the field can say (BIG TCP).
		if total >= header && total < len(b) {
			b = b[:total]
		}
		b = b[header:]
	case 6:
		if len(b) < 40 {
			return p, false
		}
		p.server, protocol = netip.AddrFrom16([16]byte(b[8:24])), b[6]
		if n := int(binary.BigEndian.Uint16(b[4:])); n > 0 && 40+n < len(b) {
			b = b[:40+n]
		}
		if protocol, b, ok = p.skipExtensions(protocol, b[40:]); !ok {
			return p, false
		}
	default:
		return p, false
	}
	return p, p.transport(protocol, b)
}

// skipExtensions passes over the IPv6 extension headers that may stand before a transport header
// (RFC 8200, 4). Each is at least eight bytes, so it ends.
func (p *dnsPacket) skipExtensions(protocol byte, b []byte) (byte, []byte, bool) {
	for {
		size := 8
		switch protocol {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_DSTOPTS, unix.IPPROTO_ROUTING:
			if len(b) >= 2 {
				size = (int(b[1]) + 1) * 8
			}
		case unix.IPPROTO_FRAGMENT:
			if len(b) < 8 || binary.BigEndian.Uint16(b[2:])&^7 != 0 {
				return 0, nil, false
			}
			p.partial = b[3]&1 != 0
		default:
			return protocol, b, true
		}
		if len(b) < size {
			return 0, nil, false
		}
		protocol, b = b[0], b[size:]
	}
}

func (p *dnsPacket) transport(protocol byte, b []byte) bool {
	switch protocol {
	case unix.IPPROTO_UDP:
		if len(b) < 8 {
			return false
		}
		if n := int(binary.BigEndian.Uint16(b[4:])); n >= 8 && n < len(b) {
			b = b[:n]
		}
		p.port, p.payload = binary.BigEndian.Uint16(b[2:]), b[8:]
	case unix.IPPROTO_TCP:
		if len(b) < 20 {
			return false
		}
		header := int(b[12]>>4) * 4
		if header < 20 || header > len(b) {
			return false
		}
		p.tcp, p.flags, p.seq = true, b[13], binary.BigEndian.Uint32(b[4:])
		p.port, p.payload = binary.BigEndian.Uint16(b[2:]), b[header:]
	default:
		return false
	}
	return binary.BigEndian.Uint16(b) == 53
}
