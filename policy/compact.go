package policy

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// compact makes the pieces of all rules into the entries of one side: sorted, without doubles,
// disjoint where they are not exact, and exactly their union.
//
// Blocks lie in one another or apart, never across. So a block needs no splitting: what a wider
// block allows already is left out of the narrower one's ports, and the two are disjoint. Only a
// block with every protocol inside of one with some ports has no such form (a protocol range would
// be needed); there the wider one is split around it. The number of entries grows with what rules
// write, whatever the nesting.
func compact(raw []piece) []Entry {
	slices.SortFunc(raw, comparePieces)
	var nodes []*node
	var stack []*node
	for i := 0; i < len(raw); {
		j := i
		for j < len(raw) && raw[j].Peer == raw[i].Peer {
			j++
		}
		n := newNode(raw[i:j])
		i = j
		for len(stack) > 0 && !stack[len(stack)-1].block.Contains(n.block.Addr()) {
			stack = stack[:len(stack)-1]
		}
		if len(stack) > 0 {
			above := stack[len(stack)-1]
			if above.any != "" {
				continue // all of it is allowed already
			}
			n.own = subtractSpans(n.own, above.all)
			if n.any == "" && len(n.own) == 0 {
				continue
			}
			n.all = union(slices.Concat(above.all, n.own), n.block.IsSingleIP())
			if n.any != "" && !n.block.IsSingleIP() {
				for _, wider := range stack {
					wider.holes = append(wider.holes, n.block)
				}
			}
		} else {
			n.all = n.own
		}
		nodes = append(nodes, n)
		if !n.block.IsSingleIP() {
			stack = append(stack, n)
		}
	}
	return emit(nodes)
}

// node is one block with what it allows.
type node struct {
	block netip.Prefix
	any   string // the rule that allows every protocol and port, or ""
	own   []span // what this block adds to those around it
	all   []span // what is allowed here
	holes []netip.Prefix
}

// span is a range of ports (types for ICMP) of one protocol. Lists of them are sorted and disjoint.
type span struct {
	protocol  identity.Protocol
	low, high uint16
	rule      string
}

func newNode(pieces []piece) *node {
	n := &node{block: pieces[0].Peer}
	for _, p := range pieces {
		if p.Protocol == identity.AnyProtocol {
			n.any = p.Rule // AnyProtocol sorts first
			return n
		}
		n.own = append(n.own, span{p.Protocol, p.Port, p.EndPort, p.Rule})
	}
	n.own = union(n.own, n.block.IsSingleIP())
	return n
}

// emit turns nodes into entries, sorted. A wider block with holes comes in pieces.
func emit(nodes []*node) []Entry {
	out := make([]Entry, 0, len(nodes))
	split := false
	for _, n := range nodes {
		if n.any != "" {
			out = append(out, Entry{Peer: n.block, Rule: n.any})
			continue
		}
		parts := []netip.Prefix{n.block}
		if len(n.holes) > 0 {
			parts = identity.Subtract(n.block, n.holes)
			split = true
		}
		for _, part := range parts {
			for _, s := range n.own {
				out = append(out, Entry{Peer: part, Protocol: s.protocol, Port: s.low, EndPort: s.high, Rule: s.rule})
			}
		}
	}
	if split {
		slices.SortFunc(out, compareEntries)
	}
	return out
}

func comparePieces(a, b piece) int { return compareEntries(a.Entry, b.Entry) }

// compareEntries orders by peer (a block before what lies in it), protocol, ports, rule.
func compareEntries(a, b Entry) int {
	if c := identity.ComparePrefixes(a.Peer, b.Peer); c != 0 {
		return c
	}
	if a.Protocol != b.Protocol {
		return int(a.Protocol) - int(b.Protocol)
	}
	if a.Port != b.Port {
		return int(a.Port) - int(b.Port)
	}
	if a.EndPort != b.EndPort {
		return int(b.EndPort) - int(a.EndPort)
	}
	return strings.Compare(a.Rule, b.Rule)
}

func compareSpans(a, b span) int {
	if a.protocol != b.protocol {
		return int(a.protocol) - int(b.protocol)
	}
	if a.low != b.low {
		return int(a.low) - int(b.low)
	}
	return int(b.high) - int(a.high)
}

// union sorts spans and makes them disjoint. Where they overlap, the one that starts first keeps
// the ports; neighbours of the same rule become one, except single ports of a single address: each
// of these fits in a hash set, which is cheaper than a range.
func union(spans []span, single bool) []span {
	slices.SortStableFunc(spans, compareSpans)
	out := spans[:0]
	for _, s := range spans {
		if len(out) > 0 {
			last := &out[len(out)-1]
			if last.protocol == s.protocol {
				if s.high <= last.high {
					continue
				}
				if s.low <= last.high {
					s.low = last.high + 1
				}
				exact := single && s.low == s.high && last.low == last.high && s.protocol.HasPorts()
				if s.rule == last.rule && s.low == last.high+1 && !exact {
					last.high = s.high
					continue
				}
			}
		}
		out = append(out, s)
	}
	return out
}

// subtractSpans gives what is left of a without b; both are sorted and disjoint.
func subtractSpans(a, b []span) []span {
	if len(b) == 0 {
		return a
	}
	var out []span
	j := 0
	for _, s := range a {
		for j < len(b) && (b[j].protocol < s.protocol || b[j].protocol == s.protocol && b[j].high < s.low) {
			j++
		}
		gone := false
		for k := j; k < len(b) && b[k].protocol == s.protocol && b[k].low <= s.high; k++ {
			if b[k].low > s.low {
				left := s
				left.high = b[k].low - 1
				out = append(out, left)
			}
			if b[k].high >= s.high {
				gone = true
				break
			}
			s.low = max(s.low, b[k].high+1)
		}
		if !gone {
			out = append(out, s)
		}
	}
	return out
}
