package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/kube"
)

// Inherit swaps the addresses of two detached pods, on whichever nodes: what is attached next has the
// other's former addresses, as when a cluster hands an address out again. The blocks of their bridges
// must hold them. Inventories say so when it returns, on the nodes whose daemons run.
func (l *Lab) Inherit(ctx context.Context, heir, former string) error {
	a, errA := l.Pod(heir)
	b, errB := l.Pod(former)
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	if !a.Detached || !b.Detached || len(a.Addrs) != len(b.Addrs) {
		return fmt.Errorf("%s and %s: want two detached pods with as many addresses", a, b)
	}
	for _, p := range [][2]*Pod{{a, b}, {b, a}} {
		net := l.node(p[0].Node).Nets[p[0].Net]
		for _, addr := range p[1].Addrs {
			if !net.Block4.Contains(addr) && !net.Block6.Contains(addr) {
				return fmt.Errorf("pod %s: address %s: in no block of its node's bridge", p[0], addr)
			}
		}
	}
	if err := l.change(func() { a.Addrs, b.Addrs = b.Addrs, a.Addrs }); err != nil {
		return err
	}
	for _, p := range []*Pod{a, b} {
		if err := l.lead(p); err != nil {
			return fmt.Errorf("pod %s: %w", p, err)
		}
	}
	return errors.Join(l.retell(ctx, a, b.Addrs), l.retell(ctx, b, a.Addrs))
}

// lead brings every route to a pod up to date.
func (l *Lab) lead(pod *Pod) error {
	for _, n := range l.Nodes {
		if err := l.leadFrom(n, pod); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
	}
	p, err := openPlace(l.Outside.NetNS)
	if err != nil {
		return err
	}
	defer p.close()
	eth, err := p.LinkByName("eth0")
	if err != nil {
		return err
	}
	for _, addr := range pod.Addrs {
		via, _ := l.node(pod.Node).lanAddr(addr.Is4())
		if err := p.route(eth, single(addr), via, netip.Addr{}); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) leadFrom(n *Node, pod *Pod) error {
	p, err := openPlace(n.NetNS)
	if err != nil {
		return err
	}
	defer p.close()
	eth, err := p.LinkByName("eth0")
	if err != nil {
		return err
	}
	bridges := make([]netlink.Link, len(n.Nets))
	for i, net := range n.Nets {
		if bridges[i], err = p.LinkByName(net.Bridge); err != nil {
			return err
		}
	}
	for _, addr := range pod.Addrs {
		if pod.Node == n.Name { // the node answers no longer for somebody elsewhere
			neigh := &netlink.Neigh{LinkIndex: bridges[pod.Net].Attrs().Index, Family: unix.AF_INET6, Flags: netlink.NTF_PROXY, IP: addr.AsSlice()}
			if err := p.NeighDel(neigh); addr.Is6() && err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
		if err := p.podRoute(l.State, n, eth, bridges, pod, addr); err != nil {
			return err
		}
	}
	return nil
}

// retell writes a pod's addresses into the inventory of its node, and waits until the daemon does not
// know it by the former ones. By the new ones it need not: they may be somebody's still.
func (l *Lab) retell(ctx context.Context, pod *Pod, former []netip.Addr) error {
	n := l.node(pod.Node)
	file := filepath.Join(n.Dir, "inventory", "lab.json")
	inv, err := kube.ReadFiles(file)
	if err != nil {
		return err
	}
	text, err := l.inventory(n, inv)
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(file+".new", text, 0o644), os.Rename(file+".new", file)); err != nil {
		return err
	}
	c := api.NewClient(n.Socket())
	defer c.Close()
	for l.DaemonPID(n.Name) != 0 {
		list, err := c.Workloads(ctx)
		if err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
		if !hasAny(list, pod, former) {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("node %s: pod %s: inventory not read: %w", n.Name, pod, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// hasAny says whether a daemon knows a pod by any of these addresses.
func hasAny(list []api.Workload, pod *Pod, addrs []netip.Addr) bool {
	for _, w := range list {
		for _, a := range addrs {
			if w.Namespace+"/"+w.Name == pod.String() && slices.Contains(w.Addrs, a.String()) {
				return true
			}
		}
	}
	return false
}
