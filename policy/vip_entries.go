package policy

import (
	"net/netip"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// virtual adds what holds for the ports of Service addresses (see vip.go), before all rules.
func (b *builder) virtual(have *lookup) {
	for _, key := range b.concerned() {
		b.port(have, key)
	}
}

// port adds what holds for one port of a Service address.
func (b *builder) port(have *lookup, key identity.VIPKey) {
	backends := b.view.Backends(key)
	if len(backends) == 0 || b.view.Owner(key.Addr) != nil {
		return
	}
	x := b.behind(have, key, backends)
	if !x.allow && !x.written {
		// Rules by name: a resolver, say.
		if y := have.decide(key.Addr, key.Protocol, key.Port, byName); y.allow && y.rule != "" {
			x = y
		}
	}
	b.at = standing{rank: rankVIP, admin: true, rule: x.rule + " (service " + b.view.VIPNames[key.Addr] + ")"}
	if !x.allow {
		b.at.action = ActionDeny
	}
	b.add(identity.Single(key.Addr), ports{protocol: key.Protocol, low: key.Port, high: key.Port}, byName)
}

// concerns says whether any piece has to do with a port of a Service, as [builder.concerned] has it.
func (b *builder) concerns(have *lookup, key identity.VIPKey) bool {
	meets := func(a netip.Addr) bool {
		return slices.Contains(b.subject.Addrs, a) || len(have.singles(a)) > 0 || have.inBlock(a)
	}
	return meets(key.Addr) || slices.ContainsFunc(b.view.Backends(key), func(x identity.Backend) bool {
		return slices.ContainsFunc(familyOf(x.Workload, key.Addr), meets)
	})
}

// concerned lists the ports of Services that any piece has to do with: for all others the Service's
// address and the workloads behind it are treated alike, by default.
func (b *builder) concerned() []identity.VIPKey {
	seen := map[identity.VIPKey]bool{}
	var out []identity.VIPKey
	note := func(key identity.VIPKey) {
		if !seen[key] {
			seen[key] = true
			out = append(out, key)
		}
	}
	for _, a := range b.subject.Addrs { // itself behind a Service
		b.view.Fronts(identity.Single(a), note)
	}
	last := netip.Prefix{}
	for i := range b.raw {
		if p := b.raw[i].peer; p != last {
			last = p
			b.view.Fronts(p, note)
		}
	}
	return out
}

// behind decides about all workloads behind a port: what the first of them gets, or the one that is
// denied, by a rule if there is one.
func (b *builder) behind(have *lookup, key identity.VIPKey, backends []identity.Backend) decided {
	var out decided
	asked := false
	for _, x := range backends {
		for _, a := range x.Workload.Addrs {
			if a.Is4() != key.Addr.Is4() {
				continue
			}
			d := decided{allow: true, rule: BuiltInSelf}
			if !slices.Contains(b.subject.Addrs, a) {
				d = have.decide(a, key.Protocol, x.Port, byAddress)
			}
			switch {
			case !d.allow && d.written:
				return d
			case !asked, out.allow && !d.allow:
				out, asked = d, true
			}
		}
	}
	return out
}

// lookup answers what many pieces say of an address, protocol and port: what [lineup.decide] would.
type lookup struct {
	singles func(netip.Addr) []piece
	blocks  map[netip.Prefix][]piece
	bits    []int // prefix lengths of blocks, both families together, ascending
	open    bool
}

type decided struct {
	allow   bool
	rule    string // empty: by default
	written bool
}

func newLookup(raw []piece, open bool) *lookup {
	singles := make(map[netip.Addr][]piece, len(raw))
	l := &lookup{blocks: map[netip.Prefix][]piece{}, open: open}
	l.singles = func(a netip.Addr) []piece { return singles[a] }
	var seen [129]bool
	for _, p := range raw {
		if p.peer.IsSingleIP() {
			singles[p.peer.Addr()] = append(singles[p.peer.Addr()], p)
			continue
		}
		seen[p.peer.Bits()] = true
		l.blocks[p.peer] = append(l.blocks[p.peer], p)
	}
	for bits, yes := range seen {
		if yes {
			l.bits = append(l.bits, bits)
		}
	}
	return l
}

// inBlock says whether an address lies in any block.
func (l *lookup) inBlock(a netip.Addr) bool {
	for _, bits := range l.bits {
		if p, err := a.Prefix(bits); err == nil && len(l.blocks[p]) > 0 {
			return true
		}
	}
	return false
}

func (l *lookup) decide(a netip.Addr, protocol identity.Protocol, port uint16, least manner) decided {
	c := cell{rest: slot{rank: rankLast}, admin: slot{rank: rankLast}}
	ask := func(list []piece) {
		for i := range list {
			if p := &list[i]; p.how >= least && p.covers(protocol, port) {
				c.meet(p)
			}
		}
	}
	ask(l.singles(a))
	for _, bits := range l.bits {
		if p, err := a.Prefix(bits); err == nil {
			ask(l.blocks[p])
		}
	}
	s := c.deciding()
	if s.rank == rankLast {
		return decided{allow: l.open && least == byAddress}
	}
	return decided{s.action != ActionDeny, s.rule, true}
}
