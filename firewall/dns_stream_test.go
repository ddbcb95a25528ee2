package firewall

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"
)

// dnsMessages is a stream of messages of all sizes.
func dnsMessages(r *rand.Rand, n int) (stream []byte, messages [][]byte) {
	for range n {
		m := make([]byte, r.IntN(300))
		for i := range m {
			m[i] = byte(r.Uint32())
		}
		messages = append(messages, m)
		stream = append(binary.BigEndian.AppendUint16(stream, uint16(len(m))), m...)
	}
	return stream, messages
}

// TestStreams cuts a stream anyhow, sends pieces twice and swaps neighbours: every message comes out
// whole, in order, once, and no later than with the segment that completes it.
func TestStreams(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("BULKHEAD_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("BULKHEAD_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for round := range 300 {
		stream, want := dnsMessages(r, 1+r.IntN(10))
		first := r.Uint32() // sequence numbers wrap
		if round%3 == 0 {
			first = -uint32(r.IntN(200))
		}
		var segments []dnsPacket
		for at := 0; at < len(stream); {
			n := min(1+r.IntN(200), len(stream)-at)
			segments = append(segments, dnsPacket{server: netip.IPv4Unspecified(), port: 1, tcp: true, flags: 0x10, seq: first + 1 + uint32(at), payload: stream[at : at+n]})
			at += n
		}
		for i := 0; i+1 < len(segments); i++ {
			switch r.IntN(4) {
			case 0:
				segments[i], segments[i+1] = segments[i+1], segments[i]
			case 1:
				segments = append(segments, segments[i]) // late, once more
			}
		}
		var s dnsStreams
		s.take(dnsPacket{server: netip.IPv4Unspecified(), port: 1, tcp: true, flags: 0x12, seq: first})
		var got [][]byte
		for _, p := range segments {
			for _, m := range s.take(p) {
				got = append(got, bytes.Clone(m))
			}
		}
		if len(got) != len(want) {
			t.Fatalf("round %d: %d messages of %d", round, len(got), len(want))
		}
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("round %d: message %d differs", round, i)
			}
		}
	}
}

func TestStreamBounds(t *testing.T) {
	var s dnsStreams
	at := func(port uint16, flags byte, seq uint32, data []byte) [][]byte {
		return s.take(dnsPacket{port: port, tcp: true, flags: flags, seq: seq, payload: data})
	}
	whole := []byte{0, 1, 'x'}
	if got := at(1, 0x10, 100, whole); got != nil {
		t.Error("read a connection whose beginning was not seen")
	}
	for port := range uint16(100) {
		at(port, 0x12, 99, nil)
	}
	if len(s.open) != streamsKept {
		t.Errorf("%d streams, bound %d", len(s.open), streamsKept)
	}
	if got := at(99, 0x10, 100, whole); len(got) != 1 {
		t.Error("the latest stream is not read")
	}
	at(99, 0x04, 103, nil)
	if got := at(99, 0x10, 103, whole); got != nil {
		t.Error("read after a reset")
	}
	at(98, 0x10, 200_000, whole) // further ahead than any window
	if s.open[streamKey{port: 98}] != nil {
		t.Error("a stream with a hole that cannot be closed is kept")
	}
	for i := range uint32(streamAhead + 1) {
		at(97, 0x10, 102+2*i, []byte{1})
	}
	if s.open[streamKey{port: 97}] != nil {
		t.Error("a stream with too many holes is kept")
	}
	big := bytes.Repeat([]byte{0xff}, 1400)
	for seq := uint32(100); seq < 100+streamBytes-1400; seq += 1400 {
		if got := at(96, 0x10, seq, big); got != nil {
			t.Fatal("a message before its end")
		}
	}
	if st := s.open[streamKey{port: 96}]; st == nil || cap(st.buf) > 4*streamBytes {
		t.Error("the largest message is not kept")
	}
}

// FuzzDNSPacket: no packet breaks the parsers, and what is read lies inside of it.
func FuzzDNSPacket(f *testing.F) {
	f.Add(rawUDP(netip.MustParseAddr("10.0.0.53"), netip.MustParseAddr("10.0.0.1"), 5353, []byte("hello")), uint16(3))
	v6 := make([]byte, 60)
	v6[0], v6[6] = 0x60, 6
	binary.BigEndian.PutUint16(v6[40:], 53)
	v6[52] = 0x50
	f.Add(v6, uint16(40))
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		p, ok := readDNSPacket(b)
		if !ok {
			return
		}
		if len(p.payload) > len(b) || !p.server.IsValid() {
			t.Fatalf("%+v of %d bytes", p, len(b))
		}
		g := guardAnswers{waiting: map[streamKey][][]byte{}}
		var s dnsStreams
		for i := range 3 {
			q := p
			q.tcp, q.seq, q.flags = i > 0, p.seq+uint32(i)*uint32(cut), p.flags&^4
			s.take(q)
			g.keep(q)
		}
		if g.bytes > guardAnswersBytes || len(g.dgrams) > guardAnswersKept {
			t.Fatal("bound passed")
		}
	})
}

func TestReadDNSPacket(t *testing.T) {
	server, client := netip.MustParseAddr("10.0.0.53"), netip.MustParseAddr("10.0.0.1")
	good := rawUDP(server, client, 5353, []byte("hello"))
	edit := func(at int, b ...byte) []byte {
		m := bytes.Clone(good)
		copy(m[at:], b)
		return m
	}
	for _, row := range []struct {
		why  string
		b    []byte
		want string
	}{
		{"UDP", good, "10.0.0.53 5353 hello"},
		{"bytes behind the packet", append(bytes.Clone(good), "padding"...), "10.0.0.53 5353 hello"},
		{"from another port", edit(20, 0, 54), ""},
		{"a first fragment", edit(6, 0x20), "10.0.0.53 5353 hello"},
		{"a later fragment", edit(7, 1), ""},
		{"a header longer than the packet", edit(0, 0x4f), ""},
		{"cut", good[:25], ""},
		{"nothing", nil, ""},
		{"no IP", []byte("hello, this is no packet at all, is it"), ""},
	} {
		got := ""
		if p, ok := readDNSPacket(row.b); ok {
			got = fmt.Sprintf("%s %d %s", p.server, p.port, p.payload)
		}
		if got != row.want {
			t.Errorf("%s: %q, want %q", row.why, got, row.want)
		}
	}
}
