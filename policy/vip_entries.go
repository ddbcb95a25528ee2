package policy

import (
	"net/netip"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// virtual adds the Service addresses that are allowed, and takes the closed ones out of all blocks
// (see vip.go).
func (b *builder) virtual(s side) {
	if len(b.view.VIPs) == 0 {
		return
	}
	have := newLookup(b.raw)
	var closed []netip.Prefix
	var allowed []piece
	for _, key := range b.view.VIPKeys() {
		backends := b.view.VIPs[key]
		if len(backends) == 0 || b.view.ByAddr[key.Addr] != nil {
			continue
		}
		rule := b.allBackends(have, key, backends)
		p := identity.Single(key.Addr)
		switch {
		case rule != "":
			e := Entry{Peer: p, Protocol: key.Protocol, Port: key.Port, EndPort: key.Port,
				Rule: rule + " (service " + b.view.VIPNames[key.Addr] + ")"}
			allowed = append(allowed, piece{e, byName})
		case have.covers(key.Addr, key.Protocol, key.Port, byAddress) != "":
			closed = append(closed, p)
		}
	}
	if len(closed) > 0 {
		b.raw = without(b.raw, identity.Union(closed))
	}
	b.raw = append(b.raw, allowed...)
}

// allBackends gives the rule that allows the first workload behind a port when all are allowed,
// else "".
func (b *builder) allBackends(have *lookup, key identity.VIPKey, backends []identity.Backend) string {
	first := ""
	for _, x := range backends {
		for _, a := range x.Workload.Addrs {
			if a.Is4() != key.Addr.Is4() {
				continue
			}
			rule := BuiltInSelf
			if !slices.Contains(b.subject.Addrs, a) {
				rule = have.covers(a, key.Protocol, x.Port, 0)
			}
			if rule == "" {
				return ""
			}
			if first == "" {
				first = rule
			}
		}
	}
	return first
}

// without takes addresses out of all pieces that rules gave by address.
func without(raw []piece, holes []netip.Prefix) []piece {
	var out []piece
	for _, p := range raw {
		if p.how != byAddress {
			out = append(out, p)
			continue
		}
		for _, rest := range identity.Subtract(p.Peer, holes) {
			p.Peer = rest
			out = append(out, p)
		}
	}
	return out
}
