package firewall

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// What a side denies is in sets of its own, of the same four kinds as what it allows. They are made and
// looked up only where they hold something, and never on the way of an exact key: what is denied of
// those is left out when the sets are made. A wide right (an address, a block, an open side) holds only
// where none of them has the packet. The rules ask for absence, so that a packet whose ports cannot be
// read, a first fragment cut short for instance, has no wide right where ports are denied.

// denies says what kinds of things one side and family denies.
type denies uint8

const (
	deniesPort  denies = 1 << iota // address . protocol . port
	deniesPeer                     // address, with every protocol and port
	deniesNets                     // blocks and ranges
	deniesTypes                    // ICMP
	deniesWhole                    // some peers altogether: their later fragments too
)

// Suffixes of the sets of denied things: egress4_deny and so on.
const (
	denySuffix     = "_deny"
	denyPeerSuffix = denySuffix + "_any"
	denyNetsSuffix = denySuffix + "_nets"
	denyTypeSuffix = denySuffix + "_icmp"
)

// denySet says whether a set's elements take rights away.
func denySet(name string) bool {
	return strings.Contains(name, denySuffix) || strings.HasPrefix(name, strangers)
}

// denies tells it for a direction and family, nothing where the direction is not judged.
func (spec Spec) denies(d policy.Direction, v6 bool) denies {
	if !spec.judges(d) {
		return 0
	}
	var out denies
	for _, e := range spec.side(d).Denied {
		if e.Peer.Addr().Is6() != v6 {
			continue
		}
		whole := e.Protocol == identity.AnyProtocol && e.EndProtocol == 0
		switch {
		case e.Exact() && whole:
			out |= deniesPeer
		case e.Exact():
			out |= deniesPort
		case e.Protocol.IsICMP() && e.EndProtocol == 0:
			if e.Protocol == (site{v6: v6}).icmp() {
				out |= deniesTypes
			}
		default:
			out |= deniesNets
		}
		if whole {
			out |= deniesWhole
		}
	}
	return out
}

// denied gives the sets of what a direction denies, those that the kinds name.
func (s site) denied(d policy.Direction, has denies, list []policy.Entry) []*Set {
	n, e := d.String()+s.digit(), sortSide(list, s)
	var out []*Set
	add := func(kind denies, set *Set) {
		if has&kind != 0 {
			out = append(out, set)
		}
	}
	add(deniesPort, &Set{Name: n + denySuffix, Key: s.flowKey(), Elements: e.exact})
	add(deniesPeer, &Set{Name: n + denyPeerSuffix, Key: Key{s.addrPart()}, Elements: e.every, Comment: "every protocol and port"})
	add(deniesNets, &Set{Name: n + denyNetsSuffix, Key: s.flowKey(), Interval: true, Elements: e.nets})
	add(deniesTypes, &Set{Name: n + denyTypeSuffix, Key: s.icmpKey(), Interval: true, Elements: e.icmp})
	return out
}

// undenied are clauses that match what a direction denies nothing of. fromPeer says that the packets
// come from the peer, answers that they go from server to client; proto is as of port.
func (s site) undenied(spec Spec, d policy.Direction, fromPeer, answers bool, proto string) []clause {
	has, n := spec.denies(d, s.v6), d.String()+s.digit()
	pair := s.key(s.addr(fromPeer), protocolField(), port(answers, proto))
	var out []clause
	if has&deniesPort != 0 {
		out = append(out, pair.notIn(n+denySuffix))
	}
	if has&deniesPeer != 0 {
		out = append(out, s.key(s.addr(fromPeer)).notIn(n+denyPeerSuffix))
	}
	if has&deniesNets != 0 {
		out = append(out, pair.notIn(n+denyNetsSuffix))
	}
	return out
}

// undeniedICMP is undenied for ICMP.
func (s site) undeniedICMP(spec Spec, d policy.Direction, fromPeer bool) []clause {
	has, n := spec.denies(d, s.v6), d.String()+s.digit()
	var out []clause
	if has&deniesNets != 0 {
		out = append(out, s.key(s.addr(fromPeer), protocolField(), port(false, "th")).notIn(n+denyNetsSuffix))
	}
	if has&deniesPeer != 0 {
		out = append(out, s.key(s.addr(fromPeer)).notIn(n+denyPeerSuffix))
	}
	// Last: nft has other names for the ports of what is known to be ICMP.
	if has&deniesTypes != 0 {
		out = append(out, l4(s.icmp(), ""), s.key(s.addr(fromPeer), s.typeField()).notIn(n+denyTypeSuffix))
	}
	return out
}

// wide are the rights of a direction that no exact key writes down, each as the clauses of one rule.
func (s site) wide(spec Spec, d policy.Direction, fromPeer, answers bool) [][]clause {
	undenied := s.undenied(spec, d, fromPeer, answers, "th")
	if !spec.lists(d) {
		return [][]clause{undenied}
	}
	n := d.String() + s.digit()
	pair := s.key(s.addr(fromPeer), protocolField(), port(answers, "th"))
	out := [][]clause{
		append([]clause{s.key(s.addr(fromPeer)).in(n + "_any")}, undenied...),
		append([]clause{pair.in(n + "_nets")}, undenied...),
	}
	if d == policy.Egress && spec.names() {
		out = append(s.wideNames(spec, fromPeer, answers), out...)
	}
	return out
}

// wideICMP is wide for ICMP. What names types is in typesICMP.
func (s site) wideICMP(spec Spec, d policy.Direction, fromPeer bool) [][]clause {
	undenied := s.undeniedICMP(spec, d, fromPeer)
	if !spec.lists(d) {
		return [][]clause{undenied}
	}
	n := d.String() + s.digit()
	out := [][]clause{
		append([]clause{s.key(s.addr(fromPeer)).in(n + "_any")}, undenied...),
		append([]clause{s.key(s.addr(fromPeer), protocolField(), port(false, "th")).in(n + "_nets")}, undenied...),
	}
	if d == policy.Egress && spec.names() {
		out = append(s.wideNamesICMP(spec, fromPeer), out...)
	}
	return out
}

func (s site) typesICMP(spec Spec, d policy.Direction, fromPeer bool) [][]clause {
	if !spec.lists(d) {
		return nil
	}
	n, typ := d.String()+s.digit(), s.key(s.addr(fromPeer), s.typeField())
	out := [][]clause{append(s.undeniedICMP(spec, d, fromPeer), l4(s.icmp(), ""), typ.in(n+"_icmp"))}
	if d == policy.Egress && spec.names() {
		out = append(out, append(s.undeniedICMP(spec, d, fromPeer), l4(s.icmp(), ""), typ.in(n+namesSuffix+"_icmp")))
	}
	return out
}

// then ends each of the rules with the same clause.
func then(rules [][]clause, end clause, add func(string, ...clause)) {
	for _, r := range rules {
		add("", append(slices.Clip(r), end)...)
	}
}

// withoutDenied leaves out the exact entries that the side denies.
func withoutDenied(side policy.Side) policy.Side {
	if len(side.Denied) == 0 || len(side.Entries) == 0 {
		return side
	}
	denied := newNamed(side.Denied)
	side.Entries = slices.DeleteFunc(slices.Clone(side.Entries), func(e policy.Entry) bool {
		return e.Exact() && e.Protocol != identity.AnyProtocol && denied.names(right{e.Peer.Addr(), e.Protocol, e.Port})
	})
	return side
}

// whole are the peers that entries name with every protocol and port: single addresses and blocks.
func whole(entries []policy.Entry, v6 bool) (single []netip.Addr, blocks []span) {
	for _, e := range entries {
		switch {
		case !e.Peer.IsValid() || e.Peer.Addr().Is6() != v6 || e.Protocol != identity.AnyProtocol || e.EndProtocol != 0:
		case e.Peer.IsSingleIP():
			single = append(single, e.Peer.Addr())
		default:
			blocks = append(blocks, span{e.Peer.Masked().Addr(), lastOf(e.Peer)})
		}
	}
	return single, union(blocks)
}
