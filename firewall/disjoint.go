package firewall

import (
	"net/netip"
	"slices"
	"sort"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// span is a range of addresses of one family, both ends included.
type span struct{ lo, hi netip.Addr }

// box is a range of addresses, protocols and ports: one element of an interval set.
type box struct {
	span
	protoLo, protoHi uint8
	portLo, portHi   uint16
}

// disjoint turns boxes that may overlap into boxes that cover the same and do not. An interval set
// with overlapping elements is refused by the kernel, or worse, taken and then impossible to delete
// from. What covers more swallows what covers less, so the result grows with the number of blocks
// and not with how they are nested.
//
// A box has every port, or it has one protocol.
func disjoint(boxes []box) []box {
	var every []span
	var full []box // every port of some protocols
	byProto := map[uint8][]box{}
	for _, b := range boxes {
		switch {
		case b.portLo != 0 || b.portHi != 65535:
			byProto[b.protoLo] = append(byProto[b.protoLo], b)
		case b.protoLo == 0 && b.protoHi == 255:
			every = append(every, b.span)
		default:
			full = append(full, b)
		}
	}
	every = union(every)
	var out []box
	for _, s := range every {
		out = append(out, box{s, 0, 255, 0, 65535})
	}
	protocols := segments(full, func(b box) (int, int) { return int(b.protoLo), int(b.protoHi) })
	for _, seg := range protocols {
		for _, s := range subtract(seg.spans, every) {
			out = append(out, box{s, uint8(seg.lo), uint8(seg.hi), 0, 65535})
		}
	}
	for proto, list := range byProto {
		taken := every
		for _, seg := range protocols {
			if seg.lo <= int(proto) && int(proto) <= seg.hi {
				taken = union(slices.Concat(taken, seg.spans))
			}
		}
		for _, seg := range segments(list, func(b box) (int, int) { return int(b.portLo), int(b.portHi) }) {
			for _, s := range subtract(seg.spans, taken) {
				out = append(out, box{s, proto, proto, uint16(seg.lo), uint16(seg.hi)})
			}
		}
	}
	return out
}

// segment is a range of ports, or of protocols, for which the same addresses are covered.
type segment struct {
	lo, hi int
	spans  []span
}

// segments cuts wherever a box begins or ends, and joins neighbours that cover the same addresses.
func segments(boxes []box, bounds func(box) (lo, hi int)) []segment {
	sort.Slice(boxes, func(i, j int) bool {
		a, _ := bounds(boxes[i])
		b, _ := bounds(boxes[j])
		return a < b
	})
	var cuts []int // where a segment begins
	for _, b := range boxes {
		lo, hi := bounds(b)
		cuts = append(cuts, lo, hi+1)
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	var out []segment
	var active []box
	for i := 0; i+1 < len(cuts); i++ {
		from, to := cuts[i], cuts[i+1]-1
		active = slices.DeleteFunc(active, func(b box) bool { _, hi := bounds(b); return hi < from })
		for len(boxes) > 0 {
			if lo, _ := bounds(boxes[0]); lo > from {
				break
			}
			active = append(active, boxes[0])
			boxes = boxes[1:]
		}
		if len(active) == 0 {
			continue
		}
		spans := make([]span, len(active))
		for i, b := range active {
			spans[i] = b.span
		}
		spans = union(spans)
		if n := len(out); n > 0 && out[n-1].hi+1 == from && slices.Equal(out[n-1].spans, spans) {
			out[n-1].hi = to
			continue
		}
		out = append(out, segment{from, to, spans})
	}
	return out
}

// union sorts spans and joins those that overlap or touch.
func union(spans []span) []span {
	spans = slices.Clone(spans)
	slices.SortFunc(spans, func(a, b span) int { return a.lo.Compare(b.lo) })
	out := spans[:0]
	for _, s := range spans {
		if n := len(out); n > 0 {
			last := &out[n-1]
			// Next of the highest address is no address, and nothing is above it.
			if next := last.hi.Next(); !next.IsValid() || s.lo.Compare(next) <= 0 {
				if s.hi.Compare(last.hi) > 0 {
					last.hi = s.hi
				}
				continue
			}
		}
		out = append(out, s)
	}
	return out
}

// subtract takes the spans of b away from those of a; both are unions.
func subtract(a, b []span) []span {
	var out []span
	for _, s := range a {
		for len(b) > 0 && b[0].hi.Compare(s.lo) < 0 {
			b = b[1:]
		}
		rest := true
		for _, t := range b {
			if t.lo.Compare(s.hi) > 0 {
				break
			}
			if t.lo.Compare(s.lo) > 0 {
				out = append(out, span{s.lo, t.lo.Prev()})
			}
			if t.hi.Compare(s.hi) >= 0 {
				rest = false
				break
			}
			s.lo = t.hi.Next()
		}
		if rest {
			out = append(out, s)
		}
	}
	return out
}

// boxOf is what an entry that is no ICMP covers.
func boxOf(p netip.Prefix, proto identity.Protocol, from, to uint16) box {
	b := box{span: span{p.Masked().Addr(), lastOf(p)}, portLo: from, portHi: to}
	if proto == identity.AnyProtocol {
		b.protoHi, b.portLo, b.portHi = 255, 0, 65535
		return b
	}
	b.protoLo, b.protoHi = uint8(proto), uint8(proto)
	if !proto.HasPorts() {
		b.portLo, b.portHi = 0, 65535
	}
	return b
}
