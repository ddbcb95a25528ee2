package kube

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// DefaultNode is where pods without a node run.
const DefaultNode = "node1"

// Where addresses that no file gives come from: blocks of these lengths, past those that are taken.
var (
	nodeBlock4 = netip.MustParsePrefix("10.200.0.0/24")
	nodeBlock6 = netip.MustParsePrefix("fd00:200::/64")
	podBlock4  = netip.MustParsePrefix("10.244.0.0/16")
	podBlock6  = netip.MustParsePrefix("fd00:244::/64")
)

// maxBlocks is how many blocks are tried for a free one.
const maxBlocks = 4096

// Complete makes the inventory one that could run: every pod has a node, every node is in Nodes, and
// every node and running pod has an address: where the files give none, one of each family, those of
// nodes from 10.200.0.0/24 and fd00:200::/64 on, those of pods from 10.244.1.0/24 and fd00:244::/64 on, a
// block of each family for every node.
//
// Errors: two running pods, or a pod and a node, that claim one address; all of them, joined.
func (inv *Inventory) Complete() error {
	c := &completer{inv: inv, owner: map[netip.Addr]string{}}
	for i := range inv.Workloads {
		w := &inv.Workloads[i]
		if w.Node == "" {
			w.Node = DefaultNode
		}
		if _, known := inv.Nodes[w.Node]; !known {
			inv.Nodes[w.Node] = identity.NodeInfo{}
		}
		if phase := inv.Pods[i].Status.Phase; phase != corev1.PodSucceeded && phase != corev1.PodFailed {
			c.running = append(c.running, w)
		}
	}
	if err := c.claims(); err != nil {
		return err
	}
	return errors.Join(c.giveNodes(), c.givePods())
}

// completer knows which addresses are taken.
type completer struct {
	inv     *Inventory
	running []*identity.Workload
	owner   map[netip.Addr]string
}

func (c *completer) take(a netip.Addr, owner string) error {
	if other, taken := c.owner[a]; taken && other != owner {
		return fmt.Errorf("%s: address %s: %s has it too; a pod that has ended must say so in status.phase", owner, a, other)
	}
	c.owner[a] = owner
	return nil
}

// claims takes down what the files give.
func (c *completer) claims() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(c.inv.Nodes)) {
		for _, a := range c.inv.Nodes[name].Addrs {
			errs = append(errs, c.take(a, "node "+name))
		}
	}
	for _, w := range c.running {
		owner := "pod " + w.Namespace + "/" + w.Name
		if w.HostNetwork {
			owner = "node " + w.Node
		}
		for _, a := range w.Addrs {
			errs = append(errs, c.take(a, owner))
		}
	}
	for _, s := range c.inv.Services {
		for _, a := range s.Addrs {
			if _, taken := c.owner[a]; !taken { // an external address may be a node's own
				_ = c.take(a, "service "+s.Namespace+"/"+s.Name) // it is free
			}
		}
	}
	return errors.Join(errs...)
}

// giveNodes gives every node without an address the next one of a block that nobody is in. A node
// whose pods in its own network tell its addresses has those.
func (c *completer) giveNodes() error {
	lan4, ok4 := c.free(nodeBlock4)
	lan6, ok6 := c.free(nodeBlock6)
	if !ok4 || !ok6 {
		return fmt.Errorf("nodes: no free block from %s and %s on", nodeBlock4, nodeBlock6)
	}
	told := map[string][]netip.Addr{}
	for _, w := range c.running {
		if w.HostNetwork {
			told[w.Node] = append(told[w.Node], w.Addrs...)
		}
	}
	a4, a6 := lan4.Addr(), lan6.Addr()
	for _, name := range slices.Sorted(maps.Keys(c.inv.Nodes)) {
		a4, a6 = a4.Next(), a6.Next()
		n := c.inv.Nodes[name]
		if len(n.Addrs) > 0 {
			continue
		}
		n.Addrs = slices.Clone(told[name])
		if len(n.Addrs) == 0 {
			n.Addrs = []netip.Addr{a4, a6}
		}
		slices.SortFunc(n.Addrs, netip.Addr.Compare)
		n.Addrs = slices.Compact(n.Addrs)
		c.inv.Nodes[name] = n
		for _, a := range n.Addrs {
			if err := c.take(a, "node "+name); err != nil {
				return err
			}
		}
	}
	return nil
}

// givePods gives every running pod without an address one of each family; one in its node's network
// has the node's. The pods of a node get theirs from one block of each family, as a cluster hands out
// blocks to nodes.
func (c *completer) givePods() error {
	for i, node := range slices.Sorted(maps.Keys(c.inv.Nodes)) {
		var pods []*identity.Workload
		for _, w := range c.running {
			switch {
			case w.Node != node || len(w.Addrs) > 0:
			case w.HostNetwork:
				w.Addrs = onePerFamily(c.inv.Nodes[node].Addrs)
			default:
				pods = append(pods, w)
			}
		}
		if len(pods) == 0 {
			continue
		}
		length := nodeBlock4.Bits()
		for 1<<(32-length) < len(pods)+3 { // the block's first and last address and its gateway are no pod's
			length--
		}
		start := netip.PrefixFrom(nth(podBlock4, (i+1)<<(32-nodeBlock4.Bits())), length).Masked()
		v4, ok4 := c.free(start)
		v6, ok6 := c.free(podBlock6)
		if !ok4 || !ok6 {
			return fmt.Errorf("node %s: no free block for %d pods from %s and %s on", node, len(pods), start, podBlock6)
		}
		for j, w := range pods {
			w.Addrs = []netip.Addr{nth(v4, j+2), nth(v6, j+2)}
			for _, a := range w.Addrs {
				if err := c.take(a, "pod "+w.Namespace+"/"+w.Name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// onePerFamily gives the first address of each family, as a pod has them.
func onePerFamily(addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if !slices.ContainsFunc(out, func(b netip.Addr) bool { return a.Is4() == b.Is4() }) {
			out = append(out, a)
		}
	}
	return out
}

// free is the first block of start's length, from it on, with nobody in it.
func (c *completer) free(start netip.Prefix) (netip.Prefix, bool) {
	block := start
search:
	for range maxBlocks {
		for a := range c.owner {
			if block.Contains(a) {
				block = next(block)
				continue search
			}
		}
		return block, true
	}
	return netip.Prefix{}, false
}

// nth is the address n steps behind a block's first one.
func nth(block netip.Prefix, n int) netip.Addr {
	b := block.Addr().AsSlice()
	for i := len(b) - 1; i >= 0 && n > 0; i-- {
		n += int(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// next is the block after one of the same length.
func next(block netip.Prefix) netip.Prefix {
	b := block.Addr().AsSlice()
	carry := 1 << (7 - (block.Bits()-1)%8)
	for i := (block.Bits() - 1) / 8; i >= 0 && carry > 0; i-- {
		carry += int(b[i])
		b[i] = byte(carry)
		carry >>= 8
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, block.Bits())
}
