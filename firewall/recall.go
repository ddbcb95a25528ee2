package firewall

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// recall works out what the rules that were read from the kernel were made from, as far as [bridge]
// must know: after a restart nobody else knows. It needs to only where something is denied, before or
// after; then it is the spec whose rules are the very ones that are there, or none.
func (ns *Namespace) recall(want *Ruleset) {
	have := ns.have
	if have == nil || have.spec.Mode != 0 || want.spec.Mode != policy.Enforce {
		return
	}
	inside := have.table(ns.placed(&Ruleset{Tables: want.Tables[:1]}).Tables[0])
	if inside == nil || inside.foreign != "" || !inside.denies() && len(want.spec.Sides.Egress.Denied)+len(want.spec.Sides.Ingress.Denied) == 0 {
		return
	}
	spec := want.spec
	spec.Sides.Egress = inside.side(policy.Egress, want.spec.Sides.Egress)
	spec.Sides.Ingress = inside.side(policy.Ingress, want.spec.Sides.Ingress)
	for _, isolated := range [][2]bool{{true, true}, {true, false}, {false, true}, {false, false}} {
		spec.Sides.Egress.Isolated, spec.Sides.Ingress.Isolated = isolated[0], isolated[1]
		if made := Compile(spec); len(diffChains(inside, made.Tables[0])) == 0 {
			have.spec = spec
			return
		}
	}
}

// denies says whether one of the table's sets is of what is denied and holds something.
func (t *Table) denies() bool {
	for _, s := range t.Sets {
		if denySet(s.Name) && len(s.Elements) > 0 {
			return true
		}
	}
	return false
}

// side reads a side back from the sets it was made to; like is how it is wanted now, for what no set
// tells.
func (t *Table) side(d policy.Direction, like policy.Side) policy.Side {
	out := policy.Side{Names: like.Names, OnDeny: like.OnDeny}
	for _, s := range families {
		n := d.String() + s.digit()
		for _, suffix := range []string{"", "_any", "_nets", "_icmp"} {
			out.Entries = append(out.Entries, s.entries(t.set(n+suffix))...)
		}
		for _, suffix := range []string{denySuffix, denyPeerSuffix, denyNetsSuffix, denyTypeSuffix} {
			out.Denied = append(out.Denied, s.entries(t.set(n+suffix))...)
		}
	}
	return out
}

// entries are a set's elements as what they were made from.
func (s site) entries(set *Set) (out []policy.Entry) {
	if set == nil || set.Dynamic {
		return nil
	}
	size := set.Key[0].padded()
	add := func(from, to netip.Addr, e policy.Entry) {
		for _, p := range (span{from, to}).prefixes() {
			e.Peer = p
			out = append(out, e)
		}
	}
	for _, e := range set.Elements {
		end := e.End
		if end == "" {
			end = e.Key
		}
		from, okFrom := netip.AddrFromSlice([]byte(e.Key[:min(size, len(e.Key))]))
		to, okTo := netip.AddrFromSlice([]byte(end[:min(size, len(end))]))
		if !okFrom || !okTo {
			continue // an element that is not ours
		}
		lo, hi := e.Key[size:], end[size:]
		switch {
		case len(set.Key) == 1:
			add(from, to, policy.Entry{})
		case strings.HasSuffix(set.Name, "_icmp"):
			add(from, to, policy.Entry{Protocol: s.icmp(), Port: uint16(lo[0]), EndPort: uint16(hi[0])})
		case lo[0] == 0 && hi[0] == 255:
			add(from, to, policy.Entry{})
		case lo[0] != hi[0]:
			add(from, to, policy.Entry{Protocol: identity.Protocol(lo[0]), EndProtocol: identity.Protocol(hi[0])})
		default:
			add(from, to, policy.Entry{Protocol: identity.Protocol(lo[0]),
				Port: binary.BigEndian.Uint16([]byte(lo[4:])), EndPort: binary.BigEndian.Uint16([]byte(hi[4:]))})
		}
	}
	return out
}

// prefixes cuts a span into blocks, the largest that fit.
func (s span) prefixes() (out []netip.Prefix) {
	for at := s.lo; at.IsValid() && at.Compare(s.hi) <= 0; {
		bits := 0
		for ; bits < at.BitLen(); bits++ {
			if p := netip.PrefixFrom(at, bits); p.Masked().Addr() == at && lastOf(p).Compare(s.hi) <= 0 {
				break
			}
		}
		p := netip.PrefixFrom(at, bits)
		out = append(out, p)
		at = lastOf(p).Next()
	}
	return out
}
