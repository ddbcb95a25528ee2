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
}

// readDNSPacket reads an IP packet with UDP or TCP in it. It is false for anything else, and for
// fragments: they never come whole.
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
		const moreFragments, offset = 0x2000, 0x1fff
		if header < 20 || header > len(b) || binary.BigEndian.Uint16(b[6:])&(moreFragments|offset) != 0 {
			return p, false
		}
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
		if protocol, b, ok = skipExtensions(protocol, b[40:]); !ok {
			return p, false
		}
	default:
		return p, false
	}
	return p, p.transport(protocol, b)
}

// skipExtensions passes over the IPv6 extension headers that may stand before a transport header
// (RFC 8200, 4), but for the fragment header.
func skipExtensions(protocol byte, b []byte) (byte, []byte, bool) {
	for protocol == unix.IPPROTO_HOPOPTS || protocol == unix.IPPROTO_DSTOPTS || protocol == unix.IPPROTO_ROUTING {
		if len(b) < 8 || len(b) < (int(b[1])+1)*8 {
			return 0, nil, false
		}
		protocol, b = b[0], b[(int(b[1])+1)*8:]
	}
	return protocol, b, true
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
