package firewall

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

var (
	decode4a, decode4b = netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("10.1.0.9")
	decode6a, decode6b = netip.MustParseAddr("fd00::5"), netip.MustParseAddr("fd00::9")
	decodeMAC          = [6]byte{2, 0, 0, 0, 0, 5}
)

// testPacket serialises layers to what the kernel hands over: a packet from its network header on.
func testPacket(t testing.TB, l ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true}, l...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func testIPv4(p layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: p, SrcIP: decode4a.AsSlice(), DstIP: decode4b.AsSlice()}
}

func testIPv6(p layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: p, SrcIP: decode6a.AsSlice(), DstIP: decode6b.AsSlice()}
}

// testSYN has the five options of an ordinary Linux SYN.
func testSYN() *layers.TCP {
	return &layers.TCP{SrcPort: 40000, DstPort: 80, SYN: true, Window: 64240, Options: []layers.TCPOption{
		{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{5, 180}},
		{OptionType: layers.TCPOptionKindSACKPermitted, OptionLength: 2},
		{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: make([]byte, 8)},
		{OptionType: layers.TCPOptionKindNop},
		{OptionType: layers.TCPOptionKindWindowScale, OptionLength: 3, OptionData: []byte{7}},
	}}
}

// testAttribute appends one netlink attribute to b.
func testAttribute(b []byte, kind uint16, v []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(v)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, v...)
	return append(b, make([]byte, (4-len(v)%4)%4)...)
}

// testLogMessage is the body of an NFLOG message as the kernel writes it.
func testLogMessage(family byte, etherType uint16, prefix string, payload []byte) []byte {
	b := []byte{family, 0, 0x12, 0x67}
	b = testAttribute(b, nflogPacketHeader, []byte{byte(etherType >> 8), byte(etherType), 3, 0})
	b = testAttribute(b, nflogPrefix, append([]byte(prefix), 0))
	b = testAttribute(b, nflogIndev, []byte{0, 0, 0, 7})
	b = testAttribute(b, nflogHardwareAddr, append(append([]byte{0, 6, 0, 0}, decodeMAC[:]...), 0, 0))
	b = testAttribute(b, nflogSequence, []byte{0, 0, 0, 9})
	return testAttribute(b, nflogPayload, payload)
}

func testDecode(t testing.TB, body []byte) (flow.Record, decodeOutcome) {
	t.Helper()
	m, ok := nflogParse(body)
	if !ok {
		return flow.Record{}, decodeMalformed
	}
	r := flow.Record{Workload: "w"}
	return r, decodeRecord(newDecodeParser(), &m, &r)
}

// decodeRow is one packet and the record that must come of it.
type decodeRow struct {
	name    string
	family  byte
	prefix  string
	payload []byte
	outcome decodeOutcome
	want    flow.Record // Time, Workload, Count left out
}

func decodeRows(t testing.TB) []decodeRow {
	tcp := func(f func(*layers.TCP)) *layers.TCP { l := testSYN(); f(l); return l }
	udp := &layers.UDP{SrcPort: 5353, DstPort: 53}
	pad := gopacket.Payload([]byte("0123456789abcdef"))
	plain := testPacket(t, testIPv4(layers.IPProtocolTCP), testSYN())
	garbled := testPacket(t, testIPv4(layers.IPProtocolTCP), testSYN())
	garbled[40], garbled[41] = 2, 0 // MSS of length 0: Linux skips the rest of the options
	ipOptions := func(o ...byte) []byte {
		return append(append(append([]byte{0x46}, plain[1:20]...), o...), plain[20:]...)
	}
	fragment4 := testIPv4(layers.IPProtocolUDP)
	fragment4.FragOffset = 185
	firstFragment4 := testIPv4(layers.IPProtocolUDP)
	firstFragment4.Flags = layers.IPv4MoreFragments
	// hop-by-hop with a router alert, destination options, then TCP
	chain := testPacket(t, testIPv6(layers.IPProtocolIPv6HopByHop), gopacket.Payload(append([]byte{
		60, 0, 5, 2, 0, 0, 1, 0,
		6, 0, 1, 4, 0, 0, 0, 0}, testPacket(t, testSYN())...)))
	fragment6 := func(offset byte) []byte {
		return testPacket(t, testIPv6(layers.IPProtocolIPv6Fragment),
			gopacket.Payload(append([]byte{17, 0, 0, offset | 1, 0, 0, 0, 1}, testPacket(t, udp, pad)...)))
	}
	mapped := testIPv6(layers.IPProtocolTCP)
	mapped.SrcIP = net.ParseIP("::ffff:10.1.0.5").To16()
	mappedPacket := testPacket(t, mapped, testSYN())
	copy(mappedPacket[8:24], netip.MustParseAddr("::ffff:10.1.0.5").AsSlice())
	inner := testPacket(t, testIPv4(layers.IPProtocolIPv4), &layers.IPv4{Version: 4, Protocol: layers.IPProtocolTCP,
		SrcIP: net.IP{1, 1, 1, 1}, DstIP: net.IP{2, 2, 2, 2}}, testSYN())

	v4 := flow.Record{Event: flow.Birth, Direction: policy.Egress, Verdict: policy.Allow, Client: decode4a, Server: decode4b}
	v6 := v4
	v6.Client, v6.Server = decode6a, decode6b
	with := func(r flow.Record, p identity.Protocol, cport, port uint16, bytes uint64, more ...func(*flow.Record)) flow.Record {
		r.Protocol, r.ClientPort, r.Port, r.Bytes = p, cport, port, bytes
		for _, f := range more {
			f(&r)
		}
		return r
	}
	in := func(r *flow.Record) { r.Direction = policy.Ingress }
	alerted := func(r *flow.Record) { r.Verdict = policy.Alert }
	denied := func(r *flow.Record) { r.Event, r.Verdict = flow.Denied, policy.Deny }
	unsided := func(r *flow.Record) { r.Direction = 0 }
	swapped := func(r *flow.Record) { r.Client, r.Server = r.Server, r.Client }

	return []decodeRow{
		{"SYN out", 2, PrefixOutAllow, plain, decodeWhole, with(v4, 6, 40000, 80, 60)},
		{"SYN in", 2, PrefixInAllow, plain, decodeWhole, with(v4, 6, 40000, 80, 60, in)},
		{"SYN that mode alert let through", 2, PrefixInAlert, plain, decodeWhole, with(v4, 6, 40000, 80, 60, in, alerted)},
		{"SYN denied", 2, PrefixOutDeny, plain, decodeWhole, with(v4, 6, 40000, 80, 60, denied)},
		{"SYN with garbled options is still a SYN", 2, PrefixOutDeny, garbled, decodeWhole, with(v4, 6, 40000, 80, 60, denied)},
		{"SYN behind IP options", 2, PrefixOutAllow, ipOptions(1, 1, 1, 0), decodeWhole, with(v4, 6, 40000, 80, 60)},
		{"SYN behind garbled IP options", 2, PrefixOutAllow, ipOptions(7, 40, 0, 0), decodeWhole, with(v4, 6, 40000, 80, 60)},
		{"SYN+ACK denied on its way out: we are the server", 2, PrefixOutDeny,
			testPacket(t, testIPv4(layers.IPProtocolTCP), tcp(func(l *layers.TCP) { l.ACK = true; l.SrcPort, l.DstPort = 80, 40000 })),
			decodeWhole, with(v4, 6, 40000, 80, 60, denied, in, swapped)},
		{"middle of a connection: nobody knows who opened it", 2, PrefixOutDeny,
			testPacket(t, testIPv4(layers.IPProtocolTCP), &layers.TCP{SrcPort: 80, DstPort: 40000, ACK: true}, pad),
			decodeWhole, with(v4, 6, 80, 40000, 56, denied, unsided)},
		{"UDP", 2, PrefixOutAllow, testPacket(t, testIPv4(layers.IPProtocolUDP), udp, pad), decodeWhole, with(v4, 17, 5353, 53, 44)},
		{"UDP, first fragment", 2, PrefixOutDeny, testPacket(t, firstFragment4, udp, pad), decodeWhole, with(v4, 17, 5353, 53, 44, denied)},
		{"UDP, later fragment", 2, PrefixOutDeny, testPacket(t, fragment4, pad), decodeWhole, with(v4, 17, 0, 0, 36, denied)},
		{"SCTP INIT", 2, PrefixOutAllow, testPacket(t, testIPv4(layers.IPProtocolSCTP),
			gopacket.Payload([]byte{0x0f, 0xa0, 0x0b, 0x59, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 4})), decodeWhole, with(v4, 132, 4000, 2905, 36)},
		{"ICMP echo", 2, PrefixOutAllow, testPacket(t, testIPv4(layers.IPProtocolICMPv4),
			&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0)}, pad), decodeWhole, with(v4, 1, 0, 8, 44)},
		{"GRE: no port, no harm", 2, PrefixOutDeny, testPacket(t, testIPv4(layers.IPProtocolGRE), pad), decodeWhole, with(v4, 47, 0, 0, 36, denied)},
		{"IP in IP is judged by its outside", 2, PrefixOutDeny, inner, decodeWhole, with(v4, 4, 0, 0, 80, denied)},
		{"SYN, IPv6", 10, PrefixOutAllow, testPacket(t, testIPv6(layers.IPProtocolTCP), testSYN()), decodeWhole, with(v6, 6, 40000, 80, 80)},
		{"SYN behind extension headers", 10, PrefixOutAllow, chain, decodeWhole, with(v6, 6, 40000, 80, 96)},
		{"UDP, IPv6, first fragment", 10, PrefixOutDeny, fragment6(0), decodeWhole, with(v6, 17, 5353, 53, 72, denied)},
		{"UDP, IPv6, later fragment", 10, PrefixOutDeny, fragment6(8), decodeWhole, with(v6, 17, 0, 0, 72, denied)},
		{"ICMPv6 echo", 10, PrefixInAllow, testPacket(t, testIPv6(layers.IPProtocolICMPv6),
			&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(128, 0)}, pad), decodeWhole, with(v6, 58, 0x3031, 128, 60, in)},
		{"IPv4-mapped address on the wire teaches nothing", 10, PrefixOutAllow, mappedPacket, decodeMalformed, flow.Record{}},
		{"IPv4-mapped address on the wire is denied aloud", 10, PrefixOutDeny, mappedPacket, decodePartial,
			with(v6, 6, 40000, 80, 80, denied, func(r *flow.Record) { r.Client = decode4a })},
		{"tiny first fragment", 2, PrefixOutDeny, testPacket(t, testIPv4(layers.IPProtocolTCP), pad[:8]), decodePartial,
			with(v4, 6, 0, 0, 28, denied, unsided)},
		{"cut in the IP header", 2, PrefixOutAllow, garbled[:19], decodeMalformed, flow.Record{}},
		{"nothing", 10, PrefixOutAllow, nil, decodeMalformed, flow.Record{}},
		{"somebody else's rule", 2, "DROP: ", garbled, decodeForeign, flow.Record{}},
	}
}

func TestDecode(t *testing.T) {
	for _, c := range decodeRows(t) {
		t.Run(c.name, func(t *testing.T) {
			got, outcome := testDecode(t, testLogMessage(c.family, 0, c.prefix, c.payload))
			if outcome != c.outcome {
				t.Fatalf("outcome %d, want %d: %+v", outcome, c.outcome, got)
			}
			if outcome < decodePartial {
				return
			}
			c.want.Workload, c.want.Count = "w", 1
			if diff := cmp.Diff(c.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestDecodeGuardFrames(t *testing.T) {
	arp := testPacket(t, &layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4,
		HwAddressSize: 6, ProtAddressSize: 4, Operation: layers.ARPReply, SourceHwAddress: decodeMAC[:],
		SourceProtAddress: decode4b.AsSlice(), DstHwAddress: make([]byte, 6), DstProtAddress: decode4a.AsSlice()})
	guard := flow.Record{Workload: "w", Sensor: flow.AtGuard, Direction: policy.Egress, Verdict: policy.Deny, Count: 1, SourceMAC: decodeMAC}
	for _, c := range []struct {
		name      string
		prefix    string
		etherType uint16
		payload   []byte
		want      func(*flow.Record)
	}{
		{"ARP for another's address", PrefixSpoof, 0x0806, arp, func(r *flow.Record) {
			r.Event, r.Client, r.Server, r.Bytes = flow.Spoof, decode4b, decode4a, 28
		}},
		{"IPv4 frame round the rules", PrefixRaw, 0x0800, testPacket(t, testIPv4(layers.IPProtocolTCP), testSYN()), func(r *flow.Record) {
			r.Event, r.Client, r.Server, r.Bytes = flow.Raw, decode4a, decode4b, 60
			r.Protocol, r.ClientPort, r.Port = identity.TCP, 40000, 80
		}},
		{"unknown ethertype", PrefixRaw, 0x88cc, []byte{1, 2, 3}, func(r *flow.Record) {
			r.Event, r.Bytes = flow.Raw, 3
		}},
	} {
		want := guard
		want.EtherType = c.etherType
		c.want(&want)
		got, outcome := testDecode(t, testLogMessage(5, c.etherType, c.prefix, c.payload))
		if outcome != decodeWhole || got != want {
			t.Errorf("%s: outcome %d\n got %+v\nwant %+v", c.name, outcome, got, want)
		}
	}
}

// A packet costs no memory once the parser exists, whatever it is.
func TestDecodeDoesNotAllocate(t *testing.T) {
	p := newDecodeParser()
	var r flow.Record
	now := time.Now()
	for _, c := range decodeRows(t) {
		if c.outcome != decodeWhole {
			continue
		}
		body := testLogMessage(c.family, 0, c.prefix, c.payload)
		n := testing.AllocsPerRun(100, func() {
			r.Time = now
			if m, ok := nflogParse(body); ok {
				decodeRecord(p, &m, &r)
			}
		})
		if n != 0 && c.name != "SYN behind garbled IP options" {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}

// Whatever comes, the decoder ends, and what it calls whole is whole.
func FuzzDecodeLog(f *testing.F) {
	for _, c := range decodeRows(f) {
		f.Add(testLogMessage(c.family, 0x0800, c.prefix, c.payload))
	}
	f.Add(testLogMessage(5, 0x0806, PrefixSpoof, []byte{0, 1, 8, 0, 6, 4, 0, 1}))
	p := newDecodeParser()
	f.Fuzz(func(t *testing.T, body []byte) {
		m, ok := nflogParse(body)
		if !ok {
			return
		}
		var r flow.Record
		outcome := decodeRecord(p, &m, &r)
		if outcome == decodeWhole && r.Protocol != identity.AnyProtocol && (!r.Client.IsValid() || !r.Server.IsValid()) {
			t.Errorf("a protocol and no addresses: %+v", r)
		}
		if outcome == decodeWhole && r.Event == flow.Birth && (!r.Client.IsValid() || !r.Server.IsValid()) {
			t.Errorf("birth without ends: %+v", r)
		}
		if r.Client.Is4In6() || r.Server.Is4In6() {
			t.Errorf("mapped address: %+v", r)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	body := testLogMessage(2, 0, PrefixOutAllow, testPacket(b, testIPv4(layers.IPProtocolTCP), testSYN()))
	p := newDecodeParser()
	var r flow.Record
	b.ReportAllocs()
	for b.Loop() {
		m, _ := nflogParse(body)
		decodeRecord(p, &m, &r)
	}
}
