package reach

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Names of ends that are no service.
const (
	World       = "world"
	OwnNode     = "node"         // the node of the other end
	AnotherNode = "another node" // any but that
	DNS         = "dns"
)

// class is workloads that no policy of the sets can tell apart, or an end that is no workload.
type class struct {
	name    string               // the service, or one of the names above, or a block
	members []*identity.Workload // empty for what is no workload
	addrs   []netip.Addr         // of the first member; one of each family at most counts
	node    string               // of a node
	sides   [2]*sides            // in either set; nil for what no policy selects
	changed [2]bool              // egress, ingress: they differ between the sets
}

// sides is what a set says of a class's first member.
type sides struct {
	policy.Sides
	egress, ingress *table
}

// workloads groups all workloads with a namespace of their own.
func (v *vocabulary) workloads() []*class {
	by := map[string]*class{}
	var order []string
	behind := v.behind()
	for _, w := range v.view.Workloads {
		if w.HostNetwork || len(w.Addrs) == 0 {
			continue
		}
		key := v.signature(w, behind)
		if by[key] == nil {
			by[key] = &class{name: w.Service.String(), addrs: w.Addrs}
			order = append(order, key)
		}
		by[key].members = append(by[key].members, w)
	}
	out := make([]*class, len(order))
	for i, key := range order {
		out[i] = by[key]
	}
	return out
}

// behind lists for each workload the Services, of those that policies name, that it is behind.
func (v *vocabulary) behind() map[*identity.Workload][]string {
	out := map[*identity.Workload][]string{}
	for ref := range v.services {
		for _, w := range v.view.Behind(ref.Namespace, ref.Name) {
			out[w] = append(out[w], ref.Namespace+"/"+ref.Name)
		}
	}
	for _, names := range out {
		slices.Sort(names)
	}
	return out
}

// signature is all that policies can ask of a workload. Its service is part of it, since that is how
// people are told.
func (v *vocabulary) signature(w *identity.Workload, behind map[*identity.Workload][]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %q", w.Namespace, w.Service.Name)
	write := func(keys map[string]bool, labels identity.Labels) {
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			if value, has := labels[k]; has {
				fmt.Fprintf(&b, " %q=%q", k, value)
			}
		}
		b.WriteByte(';')
	}
	write(v.podKeys, w.Labels)
	write(v.spaceKeys, w.NamespaceLabels)
	var ports []string
	for _, p := range w.Ports {
		if v.ports[p.Name] {
			ports = append(ports, fmt.Sprintf("%q=%s/%d", p.Name, p.Protocol, p.Port))
		}
	}
	slices.Sort(ports)
	fmt.Fprintf(&b, "%v;%v;", ports, behind[w])
	for _, a := range w.Addrs {
		fmt.Fprintf(&b, "%s ", v.innermost(a))
	}
	return b.String()
}

// others lists the ends that are no workload with a namespace of its own: nodes, resolvers, and each
// cell of addresses that nobody has.
func (v *vocabulary) others() []*class {
	var out []*class
	nodes := map[string][]netip.Addr{}
	for name := range v.view.Nodes {
		nodes[name] = v.view.NodeOf(&identity.Workload{Node: name})
	}
	for _, w := range v.view.Workloads {
		if w.HostNetwork && w.Node != "" {
			nodes[w.Node] = v.view.NodeOf(w)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		if len(nodes[name]) > 0 {
			out = append(out, &class{name: AnotherNode, addrs: nodes[name], node: name})
		}
	}
	if len(v.view.Resolvers) > 0 {
		out = append(out, &class{name: DNS, addrs: v.view.Resolvers[:1]})
	}
	return append(out, v.cells()...)
}

// cells gives each block one address that nobody has and that lies in no smaller block; a block without
// one has nobody to be told of.
func (v *vocabulary) cells() []*class {
	owned := make([]netip.Prefix, 0, len(v.view.Workloads)+len(v.view.VIPNames))
	for a := range v.view.Owned() {
		owned = append(owned, identity.Single(a))
	}
	for a := range v.view.VIPNames {
		owned = append(owned, identity.Single(a))
	}
	for name := range v.view.Nodes {
		for _, a := range v.view.NodeOf(&identity.Workload{Node: name}) {
			owned = append(owned, identity.Single(a))
		}
	}
	for _, a := range v.view.Resolvers {
		owned = append(owned, identity.Single(a))
	}
	slices.SortFunc(owned, identity.ComparePrefixes)
	world := map[netip.Prefix]bool{}
	if v.world {
		for _, p := range v.view.World() {
			world[p] = true
		}
	}
	blocks := v.sortedBlocks()
	var out []*class
	for i, p := range blocks {
		var holes []netip.Prefix
		for j := i + 1; j < len(blocks) && p.Overlaps(blocks[j]); j++ {
			holes = append(holes, blocks[j])
		}
		inner := len(holes) > 0
		holes = identity.Union(append(holes, within(owned, p)...))
		left := identity.Subtract(p, holes)
		if len(left) == 0 {
			continue
		}
		c := &class{name: p.String(), addrs: []netip.Addr{hostIn(left)}}
		switch {
		case world[p], p.Bits() == 0 && !v.world:
			c.name = World
		case p.Bits() == 0:
			c.name = "addresses that are nobody's"
		case inner:
			c.name += " (the rest)"
		}
		if p.Bits() == 0 && len(out) > 0 && out[0].name == c.name {
			out[0].addrs = append(out[0].addrs, c.addrs...) // both families of whoever is in no block
			continue
		}
		out = append(out, c)
	}
	return out
}

// within lists the owned addresses in a block.
func within(owned []netip.Prefix, p netip.Prefix) []netip.Prefix {
	from, _ := slices.BinarySearchFunc(owned, p.Addr(), func(o netip.Prefix, a netip.Addr) int { return o.Addr().Compare(a) })
	to := from
	for to < len(owned) && p.Contains(owned[to].Addr()) {
		to++
	}
	return slices.Clone(owned[from:to])
}

// examples are addresses for documentation (RFC 5737, RFC 3849): nobody's, whatever the cluster.
var examples = []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::1")}

// hostIn is an example's address if it lies in one of the blocks, else one of the largest.
func hostIn(blocks []netip.Prefix) netip.Addr {
	for _, a := range examples {
		if slices.ContainsFunc(blocks, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return a
		}
	}
	best := slices.MinFunc(blocks, func(a, b netip.Prefix) int { return a.Bits() - b.Bits() })
	if best.IsSingleIP() {
		return best.Addr()
	}
	return best.Addr().Next()
}

// perFamily is the first address of each family.
func perFamily(addrs []netip.Addr) [2]netip.Addr {
	var out [2]netip.Addr
	for _, a := range addrs {
		if f := family(a); !out[f].IsValid() {
			out[f] = a
		}
	}
	return out
}
