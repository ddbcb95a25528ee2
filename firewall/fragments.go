package firewall

import (
	"net/netip"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Later fragments carry no ports. They pass between peers that are allowed at all: without the first
// one, which was judged, nobody can use them, but who receives raw frames could read them.

// fragments says how a workload tells whose later fragments may pass.
type fragments uint8

const (
	fragmentsOfAll   fragments = iota // some direction is open to everybody
	fragmentsOfPeers                  // both list whom they allow: sets peers and peernets
	fragmentsOfMost                   // open but for some peers altogether: sets strangers and strangernets
)

// strangers begins the names of the sets of those who are allowed in no direction.
const strangers = "stranger"

func (spec Spec) fragments(v6 bool) fragments {
	out := fragmentsOfPeers
	for _, d := range []policy.Direction{policy.Egress, policy.Ingress} {
		switch {
		case spec.lists(d):
		case spec.denies(d, v6)&deniesWhole == 0:
			return fragmentsOfAll
		default:
			out = fragmentsOfMost
		}
	}
	return out
}

// laterFragments lets them pass, to or from the peer.
func (s site) laterFragments(spec Spec, fromPeer bool, add func(string, ...clause)) {
	s.ofPeers(spec, fromPeer, s.laterFragment(), add)
}

// ofPeers accepts what a clause matches, to or from a peer that is allowed at all.
func (s site) ofPeers(spec Spec, fromPeer bool, what clause, add func(string, ...clause)) {
	peer := s.key(s.addr(fromPeer))
	if spec.names() && spec.fragments(s.v6) != fragmentsOfAll {
		add("", what, peer.in(namedPeers+s.digit()), accept())
	}
	switch spec.fragments(s.v6) {
	case fragmentsOfAll:
		add("", what, accept())
	case fragmentsOfPeers:
		add("", what, peer.in("peers"+s.digit()), accept())
		add("", what, peer.in("peernets"+s.digit()), accept())
	case fragmentsOfMost:
		add("", what, peer.notIn(strangers+"s"+s.digit()), peer.notIn(strangers+"nets"+s.digit()), accept())
	}
}

// fragmentSets are the sets that laterFragments looks up.
func (s site) fragmentSets(spec Spec, sides policy.Sides) []*Set {
	const what = "for later fragments"
	var p, no peerSets
	how := spec.fragments(s.v6)
	switch how {
	case fragmentsOfPeers:
		p = sortPeers(sides, s)
	case fragmentsOfMost:
		no = sortStrangers(spec, sides, s)
	}
	out := []*Set{
		{Name: "peers" + s.digit(), Key: Key{s.addrPart()}, Elements: p.peers, Comment: what},
		{Name: "peernets" + s.digit(), Key: Key{s.addrPart()}, Interval: true, Elements: p.nets, Comment: what}}
	if how == fragmentsOfMost {
		out = append(out,
			&Set{Name: strangers + "s" + s.digit(), Key: Key{s.addrPart()}, Elements: no.peers, Comment: what},
			&Set{Name: strangers + "nets" + s.digit(), Key: Key{s.addrPart()}, Interval: true, Elements: no.nets, Comment: what})
	}
	return out
}

// sortPeers collects the addresses that either side allows, but not those that it denies altogether.
func sortPeers(sides policy.Sides, s site) peerSets {
	var single packing
	var blocks []span
	for _, side := range []policy.Side{sides.Egress, sides.Ingress} {
		no := wholeDenied(side, s.v6)
		var mine []span
		for _, e := range side.Entries {
			switch {
			case e.Peer.Addr().Is6() != s.v6 || !e.Peer.IsValid():
			case !e.Peer.IsSingleIP():
				mine = append(mine, span{e.Peer.Masked().Addr(), lastOf(e.Peer)})
			case !contains(no, e.Peer.Addr()):
				single.addr(e.Peer.Addr())
				single.done()
			}
		}
		blocks = append(blocks, subtract(union(mine), no)...)
	}
	return peerSets{single.keys(false), spanElements(union(blocks))}
}

// sortStrangers collects the addresses that an open side denies altogether and the other does not allow
// at all.
func sortStrangers(spec Spec, sides policy.Sides, s site) peerSets {
	open, other, d := sides.Egress, sides.Ingress, policy.Ingress
	if spec.lists(policy.Egress) {
		open, other, d = sides.Ingress, sides.Egress, policy.Egress
	}
	allowed := []span{s.everybody()}
	if spec.lists(d) {
		allowed = nil
		for _, e := range other.Entries {
			if e.Peer.IsValid() && e.Peer.Addr().Is6() == s.v6 {
				allowed = append(allowed, span{e.Peer.Masked().Addr(), lastOf(e.Peer)})
			}
		}
	}
	allowed = subtract(union(allowed), wholeDenied(other, s.v6))
	var single packing
	one, blocks := whole(open.Denied, s.v6)
	for _, a := range one {
		if !contains(allowed, a) {
			single.addr(a)
			single.done()
		}
	}
	return peerSets{single.keys(false), spanElements(subtract(blocks, allowed))}
}

// wholeDenied are the addresses that a side denies altogether.
func wholeDenied(side policy.Side, v6 bool) []span {
	single, blocks := whole(side.Denied, v6)
	for _, a := range single {
		blocks = append(blocks, span{a, a})
	}
	return union(blocks)
}

func (s site) everybody() span {
	if s.v6 {
		return span{netip.IPv6Unspecified(), lastOf(netip.PrefixFrom(netip.IPv6Unspecified(), 0))}
	}
	return span{netip.IPv4Unspecified(), lastOf(netip.PrefixFrom(netip.IPv4Unspecified(), 0))}
}

// contains looks an address up in a union of spans.
func contains(spans []span, a netip.Addr) bool {
	i, exact := slices.BinarySearchFunc(spans, a, func(s span, a netip.Addr) int { return s.lo.Compare(a) })
	return exact || i > 0 && a.Compare(spans[i-1].hi) <= 0
}

// spanElements are disjoint spans as elements of an interval set.
func spanElements(spans []span) []Element {
	var ends packing
	for _, b := range spans {
		ends.addr(b.lo)
		ends.done()
		ends.addr(b.hi)
		ends.done()
	}
	return ends.keys(true)
}
