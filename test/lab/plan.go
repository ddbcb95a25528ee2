package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

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
	used  map[netip.Addr]bool   // no address is given out twice
	owner map[netip.Addr]string // of given pod addresses
	names map[string]bool       // namespaces in /run/netns
	notes []string

	byName map[string]*Pod
}

// plan fills in nodes, pods, addresses and Services. Pods that have ended are left out.
// Errors: all that the inventory asks for and cannot be, joined.
func plan(s *State, inv *kube.Inventory) ([]string, error) {
	p := &planner{state: s, inv: inv, used: map[netip.Addr]bool{}, owner: map[netip.Addr]string{},
		names: map[string]bool{}, byName: map[string]*Pod{}}
	s.LAN = p.netns("lan")
	s.Outside.NetNS = p.netns("outside")
	if err := errors.Join(p.pods(), p.claims()); err != nil {
		return nil, err
	}
	steps := []func() error{p.lan, p.assign, p.blocks}
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

// pods lists what will run and the nodes that it runs on. Pods without a node share one.
func (p *planner) pods() error {
	s := p.state
	var errs []error
	for i := range p.inv.Workloads {
		w, kp := &p.inv.Workloads[i], &p.inv.Pods[i]
		if kp.Status.Phase == corev1.PodSucceeded || kp.Status.Phase == corev1.PodFailed {
			p.notes = append(p.notes, fmt.Sprintf("pod %s/%s has ended (%s): not started", w.Namespace, w.Name, kp.Status.Phase))
			continue
		}
		pod := &Pod{Namespace: w.Namespace, Name: w.Name, Node: w.Node, UID: string(kp.UID), HostNetwork: w.HostNetwork,
			Addrs: slices.Clone(w.Addrs), Ports: w.Ports}
		if pod.Node == "" {
			pod.Node = "node1"
		}
		slices.SortStableFunc(pod.Addrs, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
		sum := sha256.Sum256([]byte(s.Name + " " + s.Created.String() + " " + pod.String()))
		pod.ContainerID = hex.EncodeToString(sum[:])
		if pod.UID == "" {
			h := hex.EncodeToString(sum[16:])
			pod.UID = h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:32]
		}
		s.Pods = append(s.Pods, pod)
		p.byName[pod.String()] = pod
		p.addNode(pod.Node)
		if err := p.checkAddrs(pod); err != nil {
			errs = append(errs, err)
		}
	}
	if len(s.Nodes) == 0 {
		p.addNode("node1")
	}
	slices.SortFunc(s.Nodes, func(a, b *Node) int { return strings.Compare(a.Name, b.Name) })
	if len(s.Nodes) > maxNodes {
		errs = append(errs, fmt.Errorf("%d nodes: a lab has room for %d", len(s.Nodes), maxNodes))
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
	return errors.Join(errs...)
}

func (p *planner) addNode(name string) {
	if p.state.node(name) == nil {
		p.state.Nodes = append(p.state.Nodes, &Node{Name: name})
	}
}

// checkAddrs refuses addresses that no pod can have and those that two pods claim.
func (p *planner) checkAddrs(pod *Pod) error {
	for i, a := range pod.Addrs {
		if i > 0 && a.Is4() == pod.Addrs[i-1].Is4() {
			return fmt.Errorf("pod %s: addresses %s and %s: want one of each family", pod, pod.Addrs[i-1], a)
		}
		if err := unicast(a); err != nil {
			return fmt.Errorf("pod %s: %w", pod, err)
		}
		claim := pod.String()
		if pod.HostNetwork {
			claim = "node " + pod.Node
		}
		if other, taken := p.owner[a]; taken && other != claim {
			return fmt.Errorf("pod %s: address %s: %s has it too; a pod that has ended must say so in status.phase", pod, a, other)
		}
		p.owner[a], p.used[a] = claim, true
	}
	return nil
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

// lan gives nodes and outside their addresses on the LAN, away from everything in the inventory,
// and nodes what their hostNetwork pods claim.
func (p *planner) lan() error {
	v4, ok4 := free(netip.MustParsePrefix("10.200.0.0/24"), 4096, p.used)
	v6, ok6 := free(netip.MustParsePrefix("fd00:200::/64"), 4096, p.used)
	if !ok4 || !ok6 {
		return errors.New("LAN: no free block from 10.200.0.0/24 and fd00:200::/64 on")
	}
	take := func(n int) []netip.Addr {
		out := []netip.Addr{nth(v4, n), nth(v6, n)}
		p.used[out[0]], p.used[out[1]] = true, true
		return out
	}
	p.state.Outside.Addrs = take(254)
	for i, n := range p.state.Nodes {
		n.Addrs = take(i + 1)
	}
	for _, pod := range p.state.Pods {
		if !pod.HostNetwork {
			continue
		}
		n := p.state.node(pod.Node)
		if len(pod.Addrs) == 0 {
			pod.Addrs = slices.Clone(n.Addrs[:2])
		}
		for _, a := range pod.Addrs {
			if !slices.Contains(n.Addrs, a) {
				n.Addrs = append(n.Addrs, a)
			}
		}
	}
	return nil
}

// assign gives both families to pods that ask for no address: per node one free block of each.
func (p *planner) assign() error {
	next4, next6 := netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/64")
	for i, n := range p.state.Nodes {
		var pods []*Pod
		for _, pod := range p.state.Pods {
			if pod.Node == n.Name && len(pod.Addrs) == 0 {
				pods = append(pods, pod)
			}
		}
		if len(pods) == 0 {
			continue
		}
		length := smallestBlock4
		for 1<<(32-length) < len(pods)+3 {
			length--
		}
		start := netip.PrefixFrom(nth(next4, (i+1)<<(32-smallestBlock4)), length).Masked()
		v4, ok4 := free(start, 4096, p.used)
		v6, ok6 := free(netip.PrefixFrom(next6.Addr(), 64), 4096, p.used)
		if !ok4 || !ok6 {
			return fmt.Errorf("node %s: no free block for %d pods", n.Name, len(pods))
		}
		for j, pod := range pods {
			pod.Addrs = []netip.Addr{nth(v4, j+2), nth(v6, j+2)}
			for _, a := range pod.Addrs {
				p.used[a] = true
			}
		}
	}
	return nil
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
