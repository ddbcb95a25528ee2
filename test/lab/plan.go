package lab

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/kube"
)

// maxNodes is what the LAN's /24 has room for beside the outside network.
const maxNodes = 250

// planner decides every name and address of a lab before anything is made. It touches nothing.
type planner struct {
	state *State
	inv   *kube.Inventory
	used  map[netip.Addr]bool // no address is given out twice
	given map[string]bool     // nodes whose addresses the manifests tell
	names map[string]bool     // namespaces in /run/netns
	notes []string

	byName map[string]*Pod
}

// plan fills in nodes, pods, addresses and Services. Pods that have ended are left out.
// Errors: all that the inventory asks for and cannot be, joined.
func plan(s *State, inv *kube.Inventory) ([]string, error) {
	p := &planner{state: s, inv: inv, used: map[netip.Addr]bool{}, given: map[string]bool{},
		names: map[string]bool{}, byName: map[string]*Pod{}}
	s.LAN = p.netns("lan")
	s.Outside.NetNS = p.netns("outside")
	if err := errors.Join(p.complete(), p.claims()); err != nil {
		return nil, err
	}
	steps := []func() error{p.pods, p.lan, p.blocks}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	p.vips()
	p.resolvers()
	return p.notes, nil
}

// netns is a free name in /run/netns. File names end at 255 bytes, so a long one is cut and made
// unique by its hash.
func (p *planner) netns(name string) string {
	full := "bh" + p.state.Name + "-" + name
	if len(full) > 200 || p.names[full] {
		sum := sha256.Sum256([]byte(full))
		full = full[:min(len(full), 180)] + "-" + hex.EncodeToString(sum[:6])
	}
	p.names[full] = true
	return full
}

// complete checks the addresses that the manifests give and has the rest given out, as everybody who
// reads these manifests does.
func (p *planner) complete() error {
	var errs []error
	for name, n := range p.inv.Nodes {
		p.given[name] = len(n.Addrs) > 0
	}
	for i := range p.inv.Workloads {
		w := &p.inv.Workloads[i]
		slices.SortStableFunc(w.Addrs, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
		errs = append(errs, checkAddrs(w))
		if w.HostNetwork && len(w.Addrs) > 0 {
			p.given[cmp.Or(w.Node, kube.DefaultNode)] = true
		}
	}
	if len(p.inv.Nodes)+len(p.inv.Workloads) == 0 {
		p.inv.Nodes[kube.DefaultNode] = identity.NodeInfo{}
	}
	if err := errors.Join(append(errs, p.inv.Complete())...); err != nil {
		return err
	}
	for _, n := range p.inv.Nodes {
		for _, a := range n.Addrs {
			p.used[a] = true
		}
	}
	return nil
}

// checkAddrs refuses addresses that no pod can have. One that has ended has none.
func checkAddrs(w *identity.Workload) error {
	for i, a := range w.Addrs {
		if i > 0 && a.Is4() == w.Addrs[i-1].Is4() {
			return fmt.Errorf("pod %s/%s: addresses %s and %s: want one of each family", w.Namespace, w.Name, w.Addrs[i-1], a)
		}
		if err := unicast(a); err != nil {
			return fmt.Errorf("pod %s/%s: %w", w.Namespace, w.Name, err)
		}
	}
	return nil
}

// pods lists what will run, and all nodes.
func (p *planner) pods() error {
	s := p.state
	for i := range p.inv.Workloads {
		w, kp := &p.inv.Workloads[i], &p.inv.Pods[i]
		if kp.Status.Phase == corev1.PodSucceeded || kp.Status.Phase == corev1.PodFailed {
			p.notes = append(p.notes, fmt.Sprintf("pod %s/%s has ended (%s): not started", w.Namespace, w.Name, kp.Status.Phase))
			continue
		}
		pod := &Pod{Namespace: w.Namespace, Name: w.Name, Node: w.Node, UID: string(kp.UID), HostNetwork: w.HostNetwork,
			Addrs: slices.Clone(w.Addrs), Ports: w.Ports}
		pod.ContainerID = containerID()
		if pod.UID == "" {
			h := pod.ContainerID[32:]
			pod.UID = h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:32]
		}
		s.Pods = append(s.Pods, pod)
		p.byName[pod.String()] = pod
		for _, a := range pod.Addrs {
			p.used[a] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.inv.Nodes)) {
		s.Nodes = append(s.Nodes, &Node{Name: name})
	}
	if len(s.Nodes) > maxNodes {
		return fmt.Errorf("%d nodes: a lab has room for %d", len(s.Nodes), maxNodes)
	}
	for i, n := range s.Nodes {
		n.NetNS = p.netns(n.Name)
		n.Dir = filepath.Join(s.Dir, n.Name)
		if len(n.Socket()) > 100 { // sun_path holds 108 bytes (unix(7))
			n.Dir = filepath.Join(s.Dir, fmt.Sprintf("n%d", i+1))
		}
	}
	for _, pod := range s.Pods {
		if pod.HostNetwork {
			pod.NetNS = s.node(pod.Node).NetNS
		} else {
			pod.NetNS = p.netns(pod.Namespace + "." + pod.Name)
		}
	}
	return nil
}

// containerID is what a runtime would call a new container.
func containerID() string {
	var b [32]byte
	rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}

// unicast refuses what cannot be the address of a host.
func unicast(a netip.Addr) error {
	switch {
	case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("address %s: not a host's", a)
	case a.Is6() && a.IsLinkLocalUnicast():
		return fmt.Errorf("address %s: link-local; it says nothing without an interface", a)
	}
	return nil
}

// claims marks the Services' addresses as used.
func (p *planner) claims() error {
	var errs []error
	for _, svc := range p.inv.Services {
		for _, a := range svc.Addrs {
			if err := unicast(a); err != nil {
				errs = append(errs, fmt.Errorf("service %s/%s: %w", svc.Namespace, svc.Name, err))
			}
			p.used[a] = true
		}
	}
	return errors.Join(errs...)
}

// lan gives nodes and the outside network their addresses on the LAN. A node that the inventory gives
// addresses has them beside, and is known by them.
func (p *planner) lan() error {
	v4, v6, err := p.lanBlocks()
	if err != nil {
		return err
	}
	at := func(n int) []netip.Addr {
		out := []netip.Addr{nth(v4, n), nth(v6, n)}
		p.used[out[0]], p.used[out[1]] = true, true
		return out
	}
	p.state.Outside.Addrs = at(254)
	for i, n := range p.state.Nodes {
		n.Known = slices.Clone(p.inv.Nodes[n.Name].Addrs)
		for _, pod := range p.state.Pods {
			if pod.HostNetwork && pod.Node == n.Name {
				n.Known = append(n.Known, pod.Addrs...)
			}
		}
		slices.SortFunc(n.Known, netip.Addr.Compare)
		n.Known = slices.Compact(n.Known)
		n.Addrs = at(i + 1)
		for _, a := range n.Known {
			if !slices.Contains(n.Addrs, a) {
				n.Addrs = append(n.Addrs, a)
			}
		}
	}
	return nil
}

// lanBlocks are the blocks that the inventory was completed from, where it was; else free ones.
func (p *planner) lanBlocks() (v4, v6 netip.Prefix, err error) {
	for i, n := range p.state.Nodes {
		if p.given[n.Name] {
			continue
		}
		a := p.inv.Nodes[n.Name].Addrs
		v4, v6 = netip.PrefixFrom(a[0], smallestBlock4).Masked(), netip.PrefixFrom(a[1], smallestBlock6).Masked()
		if nth(v4, i+1) != a[0] || nth(v6, i+1) != a[1] {
			return v4, v6, fmt.Errorf("node %s: addresses %v: not number %d of their blocks", n.Name, a, i+1)
		}
		return v4, v6, nil
	}
	v4, ok4 := free(netip.MustParsePrefix("10.200.0.0/24"), 4096, p.used)
	v6, ok6 := free(netip.MustParsePrefix("fd00:200::/64"), 4096, p.used)
	if !ok4 || !ok6 {
		return v4, v6, errors.New("LAN: no free block from 10.200.0.0/24 and fd00:200::/64 on")
	}
	return v4, v6, nil
}

// blocks puts each node's pods on bridges and gives each bridge its blocks and gateways.
func (p *planner) blocks() error {
	for _, n := range p.state.Nodes {
		members := p.bridges(n)
		for i, pods := range members {
			net := Net{Bridge: fmt.Sprintf("cni%d", i)}
			var v4, v6 []netip.Addr
			for _, pod := range pods {
				pod.Net = i
				for _, a := range pod.Addrs {
					if a.Is4() {
						v4 = append(v4, a)
					} else {
						v6 = append(v6, a)
					}
				}
			}
			var err error
			taken := func(a netip.Addr) bool { return p.used[a] }
			if len(v4) > 0 {
				if net.Block4, net.Gateway4, err = cover(v4, taken); err != nil {
					return fmt.Errorf("node %s: %w", n.Name, err)
				}
				p.used[net.Gateway4] = true
			}
			if len(v6) > 0 {
				if net.Block6, net.Gateway6, err = cover(v6, taken); err != nil {
					return fmt.Errorf("node %s: %w", n.Name, err)
				}
				p.used[net.Gateway6] = true
			}
			n.Nets = append(n.Nets, net)
		}
	}
	return nil
}

// bridges groups a node's pods so that addresses on one bridge share a /8 (IPv6: a /16): wider
// blocks would swallow half of the world. The plugin allows one IPv4 address per bridge.
func (p *planner) bridges(n *Node) [][]*Pod {
	type group struct {
		v4, v6 netip.Prefix
		pods   []*Pod
	}
	var groups []*group
	for _, pod := range p.state.Pods {
		if pod.Node != n.Name || pod.HostNetwork {
			continue
		}
		var v4, v6 netip.Prefix
		for _, a := range pod.Addrs {
			if a.Is4() {
				v4 = netip.PrefixFrom(a, 8).Masked()
			} else {
				v6 = netip.PrefixFrom(a, 16).Masked()
			}
		}
		fits := func(have, want netip.Prefix) bool { return !have.IsValid() || !want.IsValid() || have == want }
		i := slices.IndexFunc(groups, func(g *group) bool { return fits(g.v4, v4) && fits(g.v6, v6) })
		if i < 0 {
			groups = append(groups, &group{})
			i = len(groups) - 1
		}
		g := groups[i]
		if v4.IsValid() {
			g.v4 = v4
		}
		if v6.IsValid() {
			g.v6 = v6
		}
		g.pods = append(g.pods, pod)
	}
	out := make([][]*Pod, len(groups))
	for i, g := range groups {
		out[i] = g.pods
	}
	return out
}

// vips resolves every Service to the pods behind it, as kube-proxy would.
func (p *planner) vips() {
	for _, svc := range p.inv.Services {
		for _, a := range svc.Addrs {
			for _, port := range svc.Ports {
				p.state.VIPs = append(p.state.VIPs, VIP{
					Service: svc.Namespace + "/" + svc.Name, Addr: a, Protocol: port.Protocol, Port: port.Port,
					PortName: port.Name, Backends: p.backends(svc, port, a.Is4()),
				})
			}
		}
	}
}

func (p *planner) backends(svc identity.KubeService, port identity.ServicePort, v4 bool) []netip.AddrPort {
	var out []netip.AddrPort
	if len(svc.Selector) == 0 {
		return nil
	}
	for i := range p.inv.Workloads {
		w := &p.inv.Workloads[i]
		pod := p.byName[w.Namespace+"/"+w.Name]
		if w.Namespace != svc.Namespace || pod == nil || !selects(svc.Selector, w.Labels) {
			continue
		}
		target := port.Target
		if port.TargetName != "" {
			target = namedPort(pod, port.TargetName, port.Protocol)
		}
		for _, a := range pod.Addrs {
			if a.Is4() == v4 && target != 0 {
				out = append(out, netip.AddrPortFrom(a, target))
			}
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out)
}

// namedPort is the number of a pod's port; 0 when it has none of that name and protocol.
func namedPort(pod *Pod, name string, proto identity.Protocol) uint16 {
	for _, p := range pod.Ports {
		if p.Name == name && p.Protocol == proto {
			return p.Port
		}
	}
	return 0
}

func selects(selector, labels identity.Labels) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// resolvers takes the cluster's DNS Service for resolv.conf, as a kubelet would be told to.
func (p *planner) resolvers() {
	if p.state.Resolvers != nil {
		return
	}
	for _, svc := range p.inv.Services {
		if svc.Namespace == "kube-system" && (svc.Name == "kube-dns" || svc.Name == "coredns" || svc.Name == "rke2-coredns-rke2-coredns") {
			p.state.Resolvers = append(p.state.Resolvers, svc.Addrs...)
		}
	}
}
