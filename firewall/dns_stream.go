package firewall

import (
	"encoding/binary"
	"net/netip"
)

// Bounds of what is kept of DNS over TCP, some 4 MiB a workload when all is used at once.
const (
	streamsKept = 32
	streamBytes = 2 + 65535 // of one: a whole message with its length (RFC 1035, 4.2.2)
	streamAhead = 16        // segments of one that came before their turn
)

// dnsStreams puts the messages of DNS over TCP together. Segments are not held up: a program can make
// nothing of half a message. The segment that completes one is what take answers for.
//
// A connection is read from its first segment on. What was open before is not, and neither is one that
// left a hole: its answers pass unread until it is closed.
type dnsStreams struct {
	open map[streamKey]*dnsStream
	turn uint64
}

type streamKey struct {
	server netip.Addr
	port   uint16
}

type dnsStream struct {
	next  uint32 // sequence number of the byte to come
	buf   []byte // of the message under way
	ahead []dnsSegment
	used  uint64
}

type dnsSegment struct {
	seq  uint32
	data []byte
}

// take gives the messages that a segment completes. They are valid until the next call.
func (t *dnsStreams) take(p dnsPacket) [][]byte {
	const fin, syn, rst = 0x01, 0x02, 0x04
	k := streamKey{p.server, p.port}
	t.turn++
	switch {
	case p.flags&rst != 0:
		delete(t.open, k)
		return nil
	case p.flags&syn != 0:
		t.begin(k, p.seq+1)
		return nil
	}
	s := t.open[k]
	if s == nil {
		return nil
	}
	s.used = t.turn
	if !s.put(p.seq, p.payload) {
		delete(t.open, k)
		return nil
	}
	out := s.messages()
	if p.flags&fin != 0 && len(s.ahead) == 0 {
		delete(t.open, k)
	}
	return out
}

// begin makes room for a stream, that of the one which was silent longest where there is none.
func (t *dnsStreams) begin(k streamKey, next uint32) {
	if s := t.open[k]; s != nil && s.next == next && len(s.buf) == 0 {
		return // the first segment again
	}
	if t.open == nil {
		t.open = map[streamKey]*dnsStream{}
	}
	if len(t.open) >= streamsKept {
		var oldest streamKey
		for other, s := range t.open {
			if o := t.open[oldest]; o == nil || s.used < o.used {
				oldest = other
			}
		}
		delete(t.open, oldest)
	}
	t.open[k] = &dnsStream{next: next, used: t.turn}
}

// put takes a segment in, and those that waited for it. It is false where they cannot be kept.
func (s *dnsStream) put(seq uint32, data []byte) bool {
	if ahead := int32(seq - s.next); ahead > 0 && len(data) > 0 {
		if len(s.ahead) >= streamAhead || int(ahead)+len(data) > streamBytes {
			return false
		}
		s.ahead = append(s.ahead, dnsSegment{seq, append([]byte(nil), data...)})
		return true
	}
	if !s.extend(seq, data) {
		return false
	}
	for i := 0; i < len(s.ahead); {
		if x := s.ahead[i]; int32(x.seq-s.next) <= 0 {
			s.ahead = append(s.ahead[:i], s.ahead[i+1:]...)
			if !s.extend(x.seq, x.data) {
				return false
			}
			i = 0 // others may have waited for this one
		} else {
			i++
		}
	}
	return true
}

// extend appends what is new of a segment that begins at or before the byte to come.
func (s *dnsStream) extend(seq uint32, data []byte) bool {
	old := int(s.next - seq)
	if old >= len(data) {
		return true // sent again
	}
	data = data[old:]
	if len(s.buf)+len(data) > 2*streamBytes {
		return false
	}
	s.buf = append(s.buf, data...)
	s.next += uint32(len(data))
	return true
}

// messages takes the whole ones out.
func (s *dnsStream) messages() (out [][]byte) {
	for len(s.buf) >= 2 {
		n := 2 + int(binary.BigEndian.Uint16(s.buf))
		if len(s.buf) < n {
			break
		}
		out = append(out, s.buf[2:n])
		s.buf = s.buf[n:]
	}
	if len(s.buf) == 0 {
		s.buf = nil // what was handed out keeps its own
	}
	return out
}
