package identity

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
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
// one world.
type View struct {
	Generation uint64
	Node       string      // this node's name
	Workloads  []*Workload // sorted by ID
	ByAddr     map[netip.Addr]*Workload
	VIPs       map[VIPKey][]Backend // every port of every Service; sorted by workload ID
	VIPNames   map[netip.Addr]string
	NodeAddrs  []netip.Addr              // this node's own addresses, sorted
	Resolvers  []netip.Addr              // resolvers of resolv.conf of all local workloads, sorted
	Networks   map[string][]netip.Prefix // named networks
	PodBlocks  []netip.Prefix            // the cluster's pod ranges, may be empty
	Services   []KubeService             // all Services, in the order given
	Nodes      map[string]NodeInfo       // nodes as their objects describe them, by name
	NoNode     bool                      // the node's own traffic to its workloads is not allowed by itself
	NoDNS      bool                      // asking resolvers is not allowed by itself

	derived sync.Once
	cluster []netip.Prefix
	world   []netip.Prefix
	vipKeys []VIPKey
	spaces  map[string][]*Workload
	labels  map[string]map[string][]*Workload // key, value: who carries it
	nets    []namedPrefix
	hosts   map[string][]netip.Addr // node: its addresses
	served  map[string][]*Workload  // "namespace/name" of a Service: the workloads that it selects
	fronts  []front                 // sorted by address
}

// front says that an address is a Service's, or of a workload behind it.
type front struct {
	addr netip.Addr
	key  VIPKey
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
	if w := v.ByAddr[addr]; w != nil {
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
	v.derive()
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
	return v.VIPs[key]
}

// VIPKeys lists every port of every virtual address, sorted.
func (v *View) VIPKeys() []VIPKey {
	v.derive()
	return v.vipKeys
}

// In lists the workloads of a Kubernetes namespace, sorted by ID.
func (v *View) In(namespace string) []*Workload {
	v.derive()
	return v.spaces[namespace]
}

// Labelled lists the workloads of all namespaces that carry a label with that value, sorted by ID.
func (v *View) Labelled(key, value string) []*Workload {
	v.derive()
	return v.labels[key][value]
}

// Workload finds a workload by its ID; nil: not known.
func (v *View) Workload(id string) *Workload {
	i, ok := slices.BinarySearchFunc(v.Workloads, id, func(w *Workload, id string) int { return strings.Compare(w.ID, id) })
	if !ok {
		return nil
	}
	return v.Workloads[i]
}

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

// derive fills what is computed from the exported fields, once.
func (v *View) derive() {
	v.derived.Do(func() {
		v.spaces, v.labels = map[string][]*Workload{}, map[string]map[string][]*Workload{}
		for _, w := range v.Workloads {
			v.spaces[w.Namespace] = append(v.spaces[w.Namespace], w)
			for key, value := range w.Labels {
				values := v.labels[key]
				if values == nil {
					values = map[string][]*Workload{}
					v.labels[key] = values
				}
				values[value] = append(values[value], w)
			}
		}
		for key := range v.VIPs {
			v.vipKeys = append(v.vipKeys, key)
		}
		slices.SortFunc(v.vipKeys, compareVIPs)
		for name, prefixes := range v.Networks {
			for _, p := range prefixes {
				v.nets = append(v.nets, namedPrefix{p, name})
			}
		}
		slices.SortFunc(v.nets, func(a, b namedPrefix) int {
			if a.prefix.Bits() != b.prefix.Bits() {
				return b.prefix.Bits() - a.prefix.Bits()
			}
			return strings.Compare(a.name, b.name)
		})
		v.hosts = hostAddrs(v)
		v.cluster = clusterBlocks(v)
		v.world = worldBlocks(v)
		v.served = servedBy(v)
		v.fronts = frontsOf(v)
	})
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
	v.derive()
	node := w.Node
	if v.IsHere(w) {
		node = v.Node
	}
	return v.hosts[node]
}

// NodesWith lists the addresses of all known nodes whose labels fit, sorted. A node without an object
// has no labels.
func (v *View) NodesWith(fits func(Labels) bool) []netip.Addr {
	v.derive()
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
	v.derive()
	i, _ := slices.BinarySearchFunc(v.fronts, p.Masked().Addr(), func(f front, a netip.Addr) int {
		if c := f.addr.Compare(a); c != 0 {
			return c
		}
		return 1
	})
	for ; i < len(v.fronts) && p.Contains(v.fronts[i].addr); i++ {
		do(v.fronts[i].key)
	}
}

func frontsOf(v *View) []front {
	out := make([]front, 0, 2*len(v.VIPs))
	for key, backends := range v.VIPs {
		out = append(out, front{key.Addr, key})
		for _, b := range backends {
			for _, a := range b.Workload.Addrs {
				if a.Is4() == key.Addr.Is4() {
					out = append(out, front{a, key})
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b front) int {
		if c := a.addr.Compare(b.addr); c != 0 {
			return c
		}
		return compareVIPs(a.key, b.key)
	})
	return out
}

// Behind lists the workloads that a Service selects, those that have ended left out, sorted by ID. Nil:
// no such Service, or one without selector, or nobody.
func (v *View) Behind(namespace, service string) []*Workload {
	v.derive()
	return v.served[namespace+"/"+service]
}

// servedBy finds the workloads behind every Service.
func servedBy(v *View) map[string][]*Workload {
	out := make(map[string][]*Workload, len(v.Services))
	for _, s := range v.Services {
		if len(s.Selector) == 0 {
			continue
		}
		for _, w := range v.spaces[s.Namespace] {
			if len(w.Addrs) > 0 && s.Selects(w) {
				name := s.Namespace + "/" + s.Name
				out[name] = append(out[name], w)
			}
		}
	}
	return out
}

// Selects says whether a workload of the Service's namespace carries its labels.
func (s KubeService) Selects(w *Workload) bool {
	for k, val := range s.Selector {
		if have, ok := w.Labels[k]; !ok || have != val {
			return false
		}
	}
	return len(s.Selector) > 0 && w.Namespace == s.Namespace
}

// hostAddrs gathers the addresses of every node: from node objects, and from the workloads in its
// network namespace.
func hostAddrs(v *View) map[string][]netip.Addr {
	hosts := map[string][]netip.Addr{v.Node: slices.Clone(v.NodeAddrs)}
	for name, n := range v.Nodes {
		hosts[name] = append(hosts[name], n.Addrs...)
	}
	for _, w := range v.Workloads {
		if w.HostNetwork && (w.Node != "" || w.Local) {
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
