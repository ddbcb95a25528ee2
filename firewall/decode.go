package firewall

import (
	"encoding/binary"
	"iter"

	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Attributes of an NFLOG message that are read here.
// Source: enum nfulnl_attr_type in uapi/linux/netfilter/nfnetlink_log.h.
const (
	nflogPacketHeader = 1  // __be16 ethertype, __u8 hook
	nflogIndev        = 4  // __be32 ifindex
	nflogOutdev       = 5  // __be32 ifindex
	nflogHardwareAddr = 8  // __be16 length, padding, __u8 address[8]: the frame's sender
	nflogPayload      = 9  // from the network header on; netdev egress: from the Ethernet header on
	nflogPrefix       = 10 // string with its zero
	nflogSequence     = 12 // __be32, one more with every packet the kernel logged to this group
)

// nfgenmsgSize is struct nfgenmsg, with which the body of every nfnetlink message begins: family,
// version, and two bytes in network order whose meaning is the subsystem's.
const nfgenmsgSize = 4

// nflogMessage is one NFLOG message, cut in its parts. Everything refers to the receive buffer.
type nflogMessage struct {
	family    byte // of the chain: 2 IPv4, 10 IPv6, 5 netdev
	etherType uint16
	indev     int
	outdev    int
	mac       []byte
	payload   []byte
	prefix    []byte
	sequence  uint32
	sequenced bool
}

// decodeAttributes walks netlink attributes without copying: type, value. It ends at the first that
// does not fit, after which nothing more can be told from padding.
func decodeAttributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			// Length and type are in the machine's order.
			n, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
			if n < unix.SizeofNlAttr || n > len(b) {
				return
			}
			const flags = unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER
			if !yield(kind&^flags, b[unix.SizeofNlAttr:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

// nflogParse cuts the body of a netlink message (struct nfgenmsg and attributes) in its parts. It
// is false where a part is missing that every message has.
func nflogParse(body []byte) (m nflogMessage, ok bool) {
	if len(body) < nfgenmsgSize {
		return m, false
	}
	m.family = body[0]
	for kind, v := range decodeAttributes(body[nfgenmsgSize:]) {
		switch {
		case kind == nflogPacketHeader && len(v) >= 3:
			m.etherType = binary.BigEndian.Uint16(v)
		case kind == nflogIndev && len(v) == 4:
			m.indev = int(binary.BigEndian.Uint32(v))
		case kind == nflogOutdev && len(v) == 4:
			m.outdev = int(binary.BigEndian.Uint32(v))
		case kind == nflogHardwareAddr && len(v) == 12 && binary.BigEndian.Uint16(v) == 6:
			m.mac = v[4:10]
		case kind == nflogPayload:
			m.payload = v
		case kind == nflogPrefix:
			m.prefix = v
			if n := len(v); n > 0 && v[n-1] == 0 {
				m.prefix = v[:n-1]
			}
		case kind == nflogSequence && len(v) == 4:
			m.sequence, m.sequenced = binary.BigEndian.Uint32(v), true
		}
	}
	if m.family == nflogNetdev && m.indev == 0 && m.outdev != 0 && len(m.payload) >= ethernetHeader {
		// A guard inside the namespace, on its way out: the frame is whole.
		m.mac, m.etherType = m.payload[6:12], binary.BigEndian.Uint16(m.payload[12:])
		m.payload = m.payload[ethernetHeader:]
	}
	return m, m.prefix != nil && m.payload != nil
}

const (
	nflogNetdev    = 5  // NFPROTO_NETDEV
	ethernetHeader = 14 // addresses and ethertype
)

// decodeOrigin is what a log prefix says of a packet.
type decodeOrigin struct {
	sensor    flow.Sensor
	event     flow.Event
	direction policy.Direction
	verdict   policy.Verdict
}

func decodePrefix(prefix []byte) (o decodeOrigin, known bool) {
	switch string(prefix) {
	case PrefixOutAllow:
		return decodeOrigin{flow.InNamespace, flow.Birth, policy.Egress, policy.Allow}, true
	case PrefixOutAlert:
		return decodeOrigin{flow.InNamespace, flow.Birth, policy.Egress, policy.Alert}, true
	case PrefixOutDeny:
		return decodeOrigin{flow.InNamespace, flow.Denied, policy.Egress, policy.Deny}, true
	case PrefixInAllow:
		return decodeOrigin{flow.InNamespace, flow.Birth, policy.Ingress, policy.Allow}, true
	case PrefixInAlert:
		return decodeOrigin{flow.InNamespace, flow.Birth, policy.Ingress, policy.Alert}, true
	case PrefixInDeny:
		return decodeOrigin{flow.InNamespace, flow.Denied, policy.Ingress, policy.Deny}, true
	case PrefixSpoof:
		return decodeOrigin{flow.AtGuard, flow.Spoof, policy.Egress, policy.Deny}, true
	case PrefixRaw:
		return decodeOrigin{flow.AtGuard, flow.Raw, policy.Egress, policy.Deny}, true
	}
	return decodeOrigin{}, false
}

// decodeOutcome says what became of a log message.
type decodeOutcome uint8

const (
	decodeForeign   decodeOutcome = iota // not logged by a rule of ours
	decodeMalformed                      // no record can be made of it
	decodePartial                        // a record, though the packet is not as it should be
	decodeWhole
)

// decodeRecord makes a record of a log message: who sent what to whom, as the packet itself says.
//
// r's Time and Workload are the caller's and stay. Nothing of m is kept.
//
// A packet that shows by its own flags that its sender is the server (SYN with ACK, INIT ACK) gives
// a record with the ends changed over. A TCP or SCTP packet from the middle of a connection gives
// one with Direction zero: it does not say who opened. What the guard stopped is always told with
// the frame's sender as client.
func decodeRecord(p *decodeParser, m *nflogMessage, r *flow.Record) decodeOutcome {
	o, known := decodePrefix(m.prefix)
	if !known {
		return decodeForeign
	}
	etherType := m.etherType
	switch m.family { // in the inet family the packet header may be unset on the way out
	case unix.AF_INET:
		etherType = uint16(layers.EthernetTypeIPv4)
	case unix.AF_INET6:
		etherType = uint16(layers.EthernetTypeIPv6)
	}
	d := p.packet(etherType, m.payload)
	p.key = o.key(&d)
	if o.event == flow.Birth && (!d.whole || !d.src.IsValid()) {
		return decodeMalformed // nothing may be learned from it
	}
	*r = flow.Record{
		Time: r.Time, Workload: r.Workload,
		Sensor: o.sensor, Event: o.event, Direction: o.direction, Verdict: o.verdict,
		Client: d.src, Server: d.dst, Protocol: d.protocol, ClientPort: d.sport, Port: d.dport,
		Count: 1, Bytes: d.length,
	}
	if o.sensor == flow.AtGuard {
		r.EtherType = etherType
		copy(r.SourceMAC[:], m.mac)
	} else {
		decodeSides(r, d.flags)
	}
	if !d.whole {
		return decodePartial
	}
	return decodeWhole
}

// decodeSides corrects client and server by what a packet says of its own place in a connection.
func decodeSides(r *flow.Record, flags byte) {
	const ( // RFC 9293, 3.1 and RFC 9260, 3.2
		syn, ack      = 0x02, 0x10
		initC, initAK = 1, 2
	)
	var birth, answer bool
	switch r.Protocol {
	case identity.TCP:
		birth, answer = flags&(syn|ack) == syn, flags&(syn|ack) == syn|ack
	case identity.SCTP:
		birth, answer = flags == initC, flags == initAK
	default:
		return
	}
	switch {
	case birth:
	case answer:
		r.Client, r.Server = r.Server, r.Client
		r.ClientPort, r.Port = r.Port, r.ClientPort
		r.Direction = policy.Egress + policy.Ingress - r.Direction
	default:
		r.Direction = 0
	}
}
