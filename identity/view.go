package identity

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
	"strings"
)

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
// one world. One view shares with the next all that did not change.
type View struct {
	Generation uint64
	Node       string                    // this node's name
	Workloads  []*Workload               // sorted by ID
	VIPNames   map[netip.Addr]string     // Service addresses: "namespace/name"
	NodeAddrs  []netip.Addr              // this node's own addresses, sorted
	Resolvers  []netip.Addr              // resolvers of resolv.conf of all local workloads, sorted
	Networks   map[string][]netip.Prefix // named networks
	PodBlocks  []netip.Prefix            // the cluster's pod ranges, may be empty
	Services   []KubeService             // all Services, in the order given
	Nodes      map[string]NodeInfo       // nodes as their objects describe them, by name
	NoNode     bool                      // the node's own traffic to its workloads is not allowed by itself
	NoDNS      bool                      // asking resolvers is not allowed by itself

	picture
	plan    *plan
	around  []netip.Prefix          // the neighbourhoods of known workloads
	cluster []netip.Prefix          // see Cluster
	world   []netip.Prefix          // see World
	nets    []namedPrefix           // of Networks, the longest first
	hosts   map[string][]netip.Addr // node: its addresses
	news    news
}

type namedPrefix struct {
	prefix netip.Prefix
	name   string
}

// Peer names an address as it is now. The first that fits: a workload with a namespace of its own,
// this node, a resolver, a Service's address, the named network with the longest prefix, the world.
// IPv4-mapped addresses are unmapped and zones stripped.
func (v *View) Peer(addr netip.Addr) Peer {
	addr = Normal(addr)
	if w := v.Owner(addr); w != nil {
		return Peer{Kind: Pod, Addr: addr, Workload: w}
	}
	return v.unowned(addr)
}

// unowned names an address that no workload owns.
func (v *View) unowned(addr netip.Addr) Peer {
	if contains(v.NodeAddrs, addr) {
		return Peer{Kind: Node, Addr: addr}
	}
	if contains(v.Resolvers, addr) {
		return Peer{Kind: Resolver, Addr: addr}
	}
	if name, ok := v.VIPNames[addr]; ok {
		return Peer{Kind: VIP, Addr: addr, Network: name}
	}
	for _, n := range v.nets { // longest prefix first
		if n.prefix.Contains(addr) {
			return Peer{Kind: Network, Addr: addr, Network: n.name}
		}
	}
	return Peer{Kind: World, Addr: addr}
}

// Backends lists the workloads behind one port of a virtual address, those only that own an
// address of its family. Nil: not a Service's port, or nobody behind it.
func (v *View) Backends(key VIPKey) []Backend {
	key.Addr = Normal(key.Addr)
	x, _ := v.vips.Get(backing{key: key})
	return x.backends
}

// VIPKeys lists every port of every virtual address, sorted.
func (v *View) VIPKeys() []VIPKey { return v.plan.keys }

// PortsOf lists the ports of a virtual address, sorted.
func (v *View) PortsOf(a netip.Addr) []VIPKey {
	from, _ := slices.BinarySearchFunc(v.plan.keys, a, func(k VIPKey, a netip.Addr) int { return cmp.Or(k.Addr.Compare(a), 1) })
	to := from
	for to < len(v.plan.keys) && v.plan.keys[to].Addr == a {
		to++
	}
	return v.plan.keys[from:to]
}

// Owner is the workload with a namespace of its own that has an address, in the form of [Normal]; nil:
// none that is known.
func (v *View) Owner(a netip.Addr) *Workload {
	x, _ := v.owners.Get(owning{addr: a})
	return x.workload
}

// Owned goes through all addresses that workloads own, sorted.
func (v *View) Owned() iter.Seq2[netip.Addr, *Workload] {
	return func(yield func(netip.Addr, *Workload) bool) {
		v.owners.Ascend(func(x owning) bool { return yield(x.addr, x.workload) })
	}
}

// In lists the workloads of a Kubernetes namespace, sorted by ID.
func (v *View) In(namespace string) []*Workload {
	x, _ := v.spaces.Get(roll{rollKey: rollKey{name: namespace}})
	return x.list
}

// Labelled lists the workloads of all namespaces that carry a label with that value, sorted by ID.
func (v *View) Labelled(key, value string) []*Workload {
	x, _ := v.labels.Get(roll{rollKey: rollKey{key, value}})
	return x.list
}

// Workload finds a workload by its ID; nil: not known.
func (v *View) Workload(id string) *Workload { return byID(v.Workloads, id) }

func byID(sorted []*Workload, id string) *Workload {
	i, ok := slices.BinarySearchFunc(sorted, id, compareID)
	if !ok {
		return nil
	}
	return sorted[i]
}

func compareID(w *Workload, id string) int { return strings.Compare(w.ID, id) }

// Find finds a workload by namespace and name. Where several carry them, the one that runs here
// comes first, then the one that came last; nil: not known.
func (v *View) Find(namespace, name string) *Workload {
	var best *Workload
	for _, w := range v.In(namespace) {
		if w.Name == name && (best == nil || better(w, best)) {
			best = w
		}
	}
	return best
}

func better(a, b *Workload) bool {
	if a.Local != b.Local {
		return a.Local
	}
	if a.Source != b.Source {
		return a.Source > b.Source
	}
	return a.Since.After(b.Since)
}

// On is the same picture as another node has it, whose addresses are given, sorted.
func (v *View) On(node string, addrs []netip.Addr) *View {
	out := *v
	out.Node, out.NodeAddrs, out.news = node, addrs, news{}
	out.hosts = hostAddrs(&out)
	out.cluster = clusterBlocks(&out)
	out.world = worldBlocks(&out)
	return &out
}

func compareVIPs(a, b VIPKey) int {
	if c := a.Addr.Compare(b.Addr); c != 0 {
		return c
	}
	if a.Protocol != b.Protocol {
		return int(a.Protocol) - int(b.Protocol)
	}
	return int(a.Port) - int(b.Port)
}

func contains(sorted []netip.Addr, a netip.Addr) bool {
	_, ok := slices.BinarySearchFunc(sorted, a, netip.Addr.Compare)
	return ok
}

// IsHere says whether a workload runs on the node that this view was made on, as far as is known.
func (v *View) IsHere(w *Workload) bool { return w.Local || w.Node == "" || w.Node == v.Node }

// NodeOf lists the addresses of the node that a workload runs on, as far as they are known: this
// node's own, and those of workloads in that node's network namespace. Sorted.
func (v *View) NodeOf(w *Workload) []netip.Addr {
	node := w.Node
	if v.IsHere(w) {
		node = v.Node
	}
	return v.hosts[node]
}

// NodesWith lists the addresses of all known nodes whose labels fit, sorted. A node without an object
// has no labels.
func (v *View) NodesWith(fits func(Labels) bool) []netip.Addr {
	var out []netip.Addr
	for name, addrs := range v.hosts {
		if fits(v.Nodes[name].Labels) {
			out = append(out, addrs...)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// Fronts calls do with every Service port that has to do with addresses of a block: its own address lies
// there, or that of a workload behind it. One port may come several times.
func (v *View) Fronts(p netip.Prefix, do func(VIPKey)) {
	v.fronts.AscendGreaterOrEqual(front{addr: p.Masked().Addr()}, func(f front) bool {
		if !p.Contains(f.addr) {
			return false
		}
		do(f.key)
		return true
	})
}

// Behind lists the workloads that a Service selects, those that have ended left out, sorted by ID. Nil:
// no such Service, or one without selector, or nobody.
func (v *View) Behind(namespace, service string) []*Workload {
	x, _ := v.served.Get(roll{rollKey: rollKey{namespace, service}})
	return x.list
}

// IsBehind says whether a workload is one of those behind a Service.
func (v *View) IsBehind(namespace, service string, w *Workload) bool {
	return byID(v.Behind(namespace, service), w.ID) == w
}

// hostAddrs gathers the addresses of every node: from node objects, and from the workloads in its
// network namespace.
func hostAddrs(v *View) map[string][]netip.Addr {
	hosts := map[string][]netip.Addr{v.Node: slices.Clone(v.NodeAddrs)}
	for name, n := range v.Nodes {
		hosts[name] = append(hosts[name], n.Addrs...)
	}
	for _, w := range v.atHosts {
		if w.Node != "" || w.Local {
			node := w.Node
			if w.Local {
				node = v.Node
			}
			hosts[node] = append(hosts[node], w.Addrs...)
		}
	}
	for node, addrs := range hosts {
		slices.SortFunc(addrs, netip.Addr.Compare)
		hosts[node] = slices.Compact(addrs)
	}
	return hosts
}

// longestFirst lists named networks by the length of their prefixes.
func longestFirst(networks map[string][]netip.Prefix) []namedPrefix {
	var out []namedPrefix
	for name, prefixes := range networks {
		for _, p := range prefixes {
			out = append(out, namedPrefix{p, name})
		}
	}
	slices.SortFunc(out, func(a, b namedPrefix) int {
		return cmp.Or(b.prefix.Bits()-a.prefix.Bits(), strings.Compare(a.name, b.name))
	})
	return out
}
