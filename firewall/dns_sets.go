package firewall

import (
	"net/netip"
	"slices"
	"time"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// What a side allows by DNS name is in sets of its own, of the same four kinds as what it allows by
// address. They are made where a side names names, filled by [Namespace.Learn] as answers come, and
// looked up as wide rights are. Their elements end by themselves.

// namesSuffix begins the suffixes of those sets: egress4_names and so on.
const namesSuffix = "_names"

// namedPeers begins the name of the set of addresses that have any name, for later fragments.
const namedPeers = "namedpeers"

// nameSpare is how much longer than needed an element is written for. While the daemon runs it takes
// elements out itself, on time; the spare is for when it does not: connections go on for that long.
const nameSpare = 10 * time.Minute

// namesSize bounds a set of names in the kernel, whatever the daemon thinks.
const namesSize = 65535

// names says that the egress side is judged and allows something by name.
func (spec Spec) names() bool {
	return spec.lists(policy.Egress) && len(spec.Sides.Egress.Names) > 0
}

// filled says that a set's elements come from elsewhere than the ruleset: from packets, or by Learn.
func (s *Set) filled() bool { return s.Dynamic || s.Timeout > 0 }

// nameSets gives the sets of a family, empty.
func (s site) nameSets() []*Set {
	n := policy.Egress.String() + s.digit() + namesSuffix
	set := func(name string, k Key, interval bool, comment string) *Set {
		return &Set{Name: name, Key: k, Interval: interval, Size: namesSize, Timeout: nameSpare, Comment: comment}
	}
	return []*Set{
		set(n, s.flowKey(), false, "learned from DNS answers"),
		set(n+"_any", Key{s.addrPart()}, false, "every protocol and port"),
		set(n+"_nets", s.flowKey(), true, ""),
		set(n+"_icmp", s.icmpKey(), true, ""),
		set(namedPeers+s.digit(), Key{s.addrPart()}, false, "for later fragments"),
	}
}

// wideNames is the part of wide that names give.
func (s site) wideNames(spec Spec, fromPeer, answers bool) [][]clause {
	n := policy.Egress.String() + s.digit() + namesSuffix
	pair := s.key(s.addr(fromPeer), protocolField(), port(answers, "th"))
	undenied := s.undenied(spec, policy.Egress, fromPeer, answers, "th")
	return [][]clause{
		append([]clause{pair.in(n)}, undenied...),
		append([]clause{s.key(s.addr(fromPeer)).in(n + "_any")}, undenied...),
		append([]clause{pair.in(n + "_nets")}, undenied...),
	}
}

// wideNamesICMP is wideNames for ICMP.
func (s site) wideNamesICMP(spec Spec, fromPeer bool) [][]clause {
	n := policy.Egress.String() + s.digit() + namesSuffix
	undenied := s.undeniedICMP(spec, policy.Egress, fromPeer)
	return [][]clause{
		append([]clause{s.key(s.addr(fromPeer)).in(n + "_any")}, undenied...),
		append([]clause{s.key(s.addr(fromPeer), protocolField(), port(false, "th")).in(n + "_nets")}, undenied...),
	}
}

// nameElements are what one address needs in the sets of its family, by the set's name.
func nameElements(a netip.Addr, entries []policy.Entry) map[string][]Element {
	s := site{v6: a.Is6()}
	e, n := sortSide(entries, s), policy.Egress.String()+s.digit()+namesSuffix
	out := map[string][]Element{}
	for suffix, list := range map[string][]Element{"": e.exact, "_any": e.every, "_nets": e.nets, "_icmp": e.icmp} {
		if len(list) > 0 {
			out[n+suffix] = list
		}
	}
	if len(out) > 0 {
		var p packing
		p.addr(a)
		p.done()
		out[namedPeers+s.digit()] = p.keys(false)
	}
	return out
}

// resolverSets gives the set of the workload's resolvers of a family, by which answers are known.
// Loopback is left out: whatever runs in the namespace can answer there.
func (s site) resolverSet(spec Spec) *Set {
	var p packing
	for _, a := range spec.Resolvers {
		if a = a.Unmap().WithZone(""); a.Is6() == s.v6 && !a.IsLoopback() {
			p.addr(a)
			p.done()
		}
	}
	return &Set{Name: "resolvers" + s.digit(), Key: Key{s.addrPart()}, Elements: slices.Clip(p.keys(false))}
}
