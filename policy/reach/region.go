package reach

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// point is a protocol and a port (a type for ICMP) on the one line of all of them.
type point uint32

func at(p identity.Protocol, port uint16) point { return point(p)<<16 | point(port) }

func (x point) protocol() identity.Protocol { return identity.Protocol(x >> 16) }
func (x point) port() uint16                { return uint16(x) }

const last = point(255)<<16 | 0xffff

// span is a range of points, both ends in it.
type span struct{ low, high point }

// region is points: sorted spans that neither meet nor touch.
type region []span

var everything = region{{0, last}}

// spanOf is what an entry is about.
func spanOf(e policy.Entry) span {
	switch {
	case e.EndProtocol != 0:
		return span{at(e.Protocol, 0), at(e.EndProtocol, 65535)}
	case e.Protocol == identity.AnyProtocol:
		return everything[0]
	}
	return span{at(e.Protocol, e.Port), at(e.Protocol, e.EndPort)}
}

// union sorts spans and joins those that meet or touch. It writes to what it is given.
func union(spans []span) region {
	if len(spans) < 2 {
		return spans
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.low, b.low) })
	out := spans[:1]
	for _, s := range spans[1:] {
		if end := &out[len(out)-1]; s.low <= end.high+1 {
			end.high = max(end.high, s.high)
		} else {
			out = append(out, s)
		}
	}
	return out
}

// and is what lies in both.
func (r region) and(o region) region {
	var out region
	for i, j := 0, 0; i < len(r) && j < len(o); {
		low, high := max(r[i].low, o[j].low), min(r[i].high, o[j].high)
		if low <= high {
			out = append(out, span{low, high})
		}
		if r[i].high < o[j].high {
			i++
		} else {
			j++
		}
	}
	return out
}

// without is what lies in r and not in o.
func (r region) without(o region) region {
	var out region
	j := 0
	for _, s := range r {
		for j < len(o) && o[j].high < s.low {
			j++
		}
		from, done := s.low, false
		for k := j; k < len(o) && o[k].low <= s.high; k++ {
			if o[k].low > from {
				out = append(out, span{from, o[k].low - 1})
			}
			if o[k].high >= s.high {
				done = true
				break
			}
			from = max(from, o[k].high+1)
		}
		if !done {
			out = append(out, span{from, s.high})
		}
	}
	return out
}

func (r region) equal(o region) bool { return slices.Equal(r, o) }

func (r region) contains(x point) bool {
	return slices.ContainsFunc(r, func(s span) bool { return s.low <= x && x <= s.high })
}

// What the other family's ICMP covers: no packet of a family carries it.
var (
	icmp4 = region{{at(identity.ICMP, 0), at(identity.ICMP, 65535)}}
	icmp6 = region{{at(identity.ICMPv6, 0), at(identity.ICMPv6, 65535)}}
)

// protocols are those that people name, in the order in which they are told.
var protocols = []identity.Protocol{identity.TCP, identity.UDP, identity.SCTP, identity.ICMP, identity.ICMPv6}

// sample is a connection that lies in the region: of a protocol that people know, if there is one.
func (r region) sample() (identity.Protocol, uint16) {
	for _, p := range protocols {
		low := uint16(1)
		if p.IsICMP() {
			low = 0
		}
		if in := r.and(region{{at(p, low), at(p, 65535)}}); len(in) > 0 {
			return p, in[0].low.port()
		}
	}
	for _, s := range r {
		if p := s.high.protocol(); p != identity.AnyProtocol {
			return p, 0
		}
	}
	return identity.TCP, 1
}

// maxRanges is how many ranges one sentence names.
const maxRanges = 8

// String names the region for people: "TCP/80, UDP/53-54", "everything", "everything but TCP/80".
func (r region) String() string {
	if len(r) == 0 {
		return "nothing"
	}
	switch rest := everything.without(mirrored(r)); {
	case len(rest) == 0:
		return "everything"
	case len(r.names()) > len(rest.names())+1:
		return "everything but " + rest.list()
	}
	return r.list()
}

// mirrored adds the other family's ICMP to a region that has all of one: no packet of one family
// carries that of the other.
func mirrored(r region) region {
	for _, x := range [][2]region{{icmp4, icmp6}, {icmp6, icmp4}} {
		if r.and(x[0]).equal(x[0]) {
			r = union(slices.Concat(r, x[1]))
		}
	}
	return r
}

func (r region) list() string {
	names := r.names()
	if len(names) > maxRanges {
		return fmt.Sprintf("%s and %d more ranges", strings.Join(names[:maxRanges], ", "), len(names)-maxRanges)
	}
	return strings.Join(names, ", ")
}

// names lists the ranges by protocol: those that people know, then all others as one.
func (r region) names() []string {
	var out []string
	rest := r
	for _, p := range protocols {
		of := region{{at(p, 0), at(p, 65535)}}
		for _, s := range r.and(of) {
			out = append(out, rangeName(p, s.low.port(), s.high.port()))
		}
		rest = rest.without(of)
	}
	others := map[identity.Protocol]bool{}
	for _, s := range rest {
		for p := s.low.protocol(); ; p++ {
			others[p] = true
			if p == s.high.protocol() {
				break
			}
		}
	}
	switch {
	case len(others) > 3:
		out = append(out, "other protocols")
	default:
		for p := identity.Protocol(0); p < 255; p++ {
			if others[p] {
				out = append(out, "protocol "+fmt.Sprint(uint8(p)))
			}
		}
	}
	return out
}

// rangeName: no connection has port 0, so 1 to 65535 is every port.
func rangeName(p identity.Protocol, low, high uint16) string {
	switch {
	case p.IsICMP() && low == 0 && high >= 255:
		return p.String()
	case p.IsICMP() && low == high:
		return fmt.Sprintf("%s/%d", p, low)
	case low <= 1 && high == 65535:
		return p.String() + " (every port)"
	case low == high:
		return fmt.Sprintf("%s/%d", p, low)
	}
	return fmt.Sprintf("%s/%d-%d", p, max(low, 1), high)
}
