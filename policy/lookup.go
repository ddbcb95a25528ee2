package policy

import (
	"net/netip"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// lookup answers whether an address, protocol and port is covered by any of many pieces. Single
// addresses are found at once; blocks by each prefix length that occurs, and only where any block
// has the port at all.
type lookup struct {
	singles map[netip.Addr][]piece
	blocks  []piece // sorted
	bits    []int   // prefix lengths of blocks, both families together
	any     bool    // a block allows every protocol and port
	ports   []span  // what blocks allow, all together
}

func newLookup(raw []piece) *lookup {
	sorted := slices.Clone(raw)
	slices.SortFunc(sorted, comparePieces)
	l := &lookup{singles: make(map[netip.Addr][]piece, len(sorted))}
	var seen [129]bool
	for i := 0; i < len(sorted); {
		j := i
		for j < len(sorted) && sorted[j].Peer == sorted[i].Peer {
			j++
		}
		if p := sorted[i].Peer; p.IsSingleIP() {
			l.singles[p.Addr()] = sorted[i:j]
		} else {
			seen[p.Bits()] = true
			l.blocks = append(l.blocks, sorted[i:j]...)
		}
		i = j
	}
	for bits, yes := range seen {
		if yes {
			l.bits = append(l.bits, bits)
		}
	}
	for _, p := range l.blocks {
		l.any = l.any || p.Protocol == identity.AnyProtocol
		l.ports = append(l.ports, span{p.Protocol, p.Port, p.EndPort, ""})
	}
	l.ports = union(l.ports, false)
	return l
}

// covers gives the rule of a piece that covers it, "" if none does; how restricts it to pieces of
// that manner, 0 to none.
func (l *lookup) covers(a netip.Addr, protocol identity.Protocol, port uint16, how manner) string {
	for i := range l.singles[a] {
		if x := &l.singles[a][i]; x.covers(protocol, port, how) {
			return x.Rule
		}
	}
	if !l.any && !slices.ContainsFunc(l.ports, func(s span) bool { return s.protocol == protocol && s.low <= port && port <= s.high }) {
		return ""
	}
	for _, bits := range l.bits {
		if bits > a.BitLen() {
			break
		}
		p, err := a.Prefix(bits)
		if err != nil {
			return ""
		}
		i, _ := slices.BinarySearchFunc(l.blocks, p, func(x piece, p netip.Prefix) int {
			if c := identity.ComparePrefixes(x.Peer, p); c != 0 {
				return c
			}
			return 1 // the first of that prefix
		})
		for ; i < len(l.blocks) && l.blocks[i].Peer == p; i++ {
			if x := &l.blocks[i]; x.covers(protocol, port, how) {
				return x.Rule
			}
		}
	}
	return ""
}

func (p *piece) covers(protocol identity.Protocol, port uint16, how manner) bool {
	return (how == 0 || p.how == how) &&
		(p.Protocol == identity.AnyProtocol || p.Protocol == protocol && p.Port <= port && port <= p.EndPort)
}
