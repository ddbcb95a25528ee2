package identity

import (
	"net/netip"
	"slices"
)

// MetadataNetwork is the named network of the cloud's metadata servers. The configuration may give
// it other addresses; without it these hold: 169.254.169.254 and fd00:ec2::254.
const MetadataNetwork = "metadata"

var metadataPrefixes = []netip.Prefix{
	netip.MustParsePrefix("169.254.169.254/32"),
	netip.MustParsePrefix("fd00:ec2::254/128"),
}

// neverWorld are blocks that no host of the world can have (RFC 6890, RFC 4291): this host,
// loopback, link-local, multicast and reserved; of IPv6 all that starts with 16 zero bits.
var neverWorld = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/3"),
	netip.MustParsePrefix("::/16"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

// Everything is all of IPv4 and all of IPv6.
var Everything = []netip.Prefix{
	netip.PrefixFrom(netip.IPv4Unspecified(), 0),
	netip.PrefixFrom(netip.IPv6Unspecified(), 0),
}

// Normal unmaps an IPv4-mapped address and strips the zone: the one form that this project compares.
func Normal(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// Cluster is the blocks that belong to the cluster's workloads as a whole: the pod blocks of the
// configuration without this node's own addresses. Known workloads outside of them are not in it.
// Sorted, disjoint.
func (v *View) Cluster() []netip.Prefix {
	return v.cluster
}

// World is what the peer "world" means: everything but
//   - loopback, link-local, multicast and reserved addresses,
//   - the network "metadata" (for IPv6 with its /64),
//   - the cluster's pod blocks,
//   - around each known workload outside of them, its /24 (IPv4) or /64 (IPv6): a neighbour that is
//     not known yet, or no longer, is not the world,
//   - around each Service address of a private range, its /24 (IPv4) or /112 (IPv6),
//   - this node's own addresses.
//
// A resolver, or a named network other than "metadata", that lies outside of these is part of it.
// The list is short and stays the same while workloads come and go in their blocks. Sorted, disjoint.
func (v *View) World() []netip.Prefix {
	return v.world
}

func clusterBlocks(v *View) []netip.Prefix {
	var holes []netip.Prefix
	for _, a := range v.NodeAddrs {
		holes = append(holes, Single(a))
	}
	var out []netip.Prefix
	for _, p := range Union(v.PodBlocks) {
		out = append(out, Subtract(p, holes)...)
	}
	return out
}

func worldBlocks(v *View) []netip.Prefix {
	holes := slices.Clone(neverWorld)
	holes = append(holes, v.PodBlocks...)
	for _, p := range v.Networks[MetadataNetwork] {
		if p.Addr().Is6() && p.Bits() > 64 {
			p = netip.PrefixFrom(p.Addr(), 64).Masked() // the cloud's other services are its neighbours
		}
		holes = append(holes, p)
	}
	for _, a := range v.NodeAddrs {
		holes = append(holes, Single(a))
	}
	holes = append(holes, v.around...)
	for a := range v.VIPNames {
		if a.IsPrivate() {
			holes = append(holes, blockAround(a, 24, 112))
		}
	}
	holes = Union(holes)
	var out []netip.Prefix
	for _, p := range Everything {
		out = append(out, Subtract(p, holes)...)
	}
	return out
}

// neighbourhood is what counts as the cluster around a workload's address: a neighbour that is not known
// yet is not the world.
func neighbourhood(a netip.Addr) netip.Prefix { return blockAround(a, 24, 64) }

func blockAround(a netip.Addr, bits4, bits6 int) netip.Prefix {
	bits := bits4
	if a.Is6() {
		bits = bits6
	}
	p, _ := a.Prefix(bits) // of a valid address without zone
	return p
}

// Single is the prefix of one address.
func Single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// ComparePrefixes orders by address, then the wider first: a prefix comes right before what lies
// in it.
func ComparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// Union sorts masked prefixes and leaves out those that lie in another.
func Union(prefixes []netip.Prefix) []netip.Prefix {
	sorted := slices.Clone(prefixes)
	slices.SortFunc(sorted, ComparePrefixes)
	out := sorted[:0]
	for _, p := range sorted {
		if n := len(out); n > 0 && out[n-1].Overlaps(p) {
			continue
		}
		out = append(out, p)
	}
	return out
}

// Subtract gives what is left of a prefix without the holes, as the fewest prefixes, sorted and
// disjoint. Holes that do not lie in it do not matter; one that covers it leaves nothing.
func Subtract(p netip.Prefix, holes []netip.Prefix) []netip.Prefix {
	var inside []netip.Prefix
	for _, h := range holes {
		if !h.Overlaps(p) {
			continue
		}
		if h.Bits() <= p.Bits() {
			return nil
		}
		inside = append(inside, h)
	}
	if len(inside) == 0 {
		return []netip.Prefix{p}
	}
	low, high := halves(p)
	return append(Subtract(low, inside), Subtract(high, inside)...)
}

// halves splits a prefix that is wider than one address.
func halves(p netip.Prefix) (netip.Prefix, netip.Prefix) {
	bits := p.Bits() + 1
	low := netip.PrefixFrom(p.Addr(), bits)
	bytes := p.Addr().AsSlice()
	bytes[(bits-1)/8] |= 0x80 >> ((bits - 1) % 8)
	high, _ := netip.AddrFromSlice(bytes)
	return low, netip.PrefixFrom(high, bits)
}
