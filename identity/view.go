package identity

import "net/netip"

// Backend is one workload behind a virtual address, with its own port.
type Backend struct {
	Workload *Workload
	Port     uint16
}

// VIPKey is a virtual address with protocol and port.
type VIPKey struct {
	Addr     netip.Addr
	Protocol Protocol
	Port     uint16
}

// View is an immutable picture of who is who, taken from an [Index]. Everything in it is shared
// and must not be written to. Policy and the compiler work on a View, so that one computation sees
// one world.
type View struct {
	Generation uint64
	Workloads  []*Workload // sorted by ID
	ByAddr     map[netip.Addr]*Workload
	VIPs       map[VIPKey][]Backend // every port of every Service; sorted by workload ID
	VIPNames   map[netip.Addr]string
	NodeAddrs  []netip.Addr              // this node's own addresses, sorted
	Resolvers  []netip.Addr              // resolvers of resolv.conf of all local workloads, sorted
	Networks   map[string][]netip.Prefix // named networks
	PodBlocks  []netip.Prefix            // the cluster's pod ranges, may be empty
}
