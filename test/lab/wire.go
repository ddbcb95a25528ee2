package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Settings of the namespaces, below /proc/sys/net. Duplicate address detection would hold each new
// IPv6 address back for one to two seconds; ping_group_range lets anyone send echo requests.
var (
	hostSettings = map[string]string{
		"ipv6/conf/all/accept_dad":     "0",
		"ipv6/conf/default/accept_dad": "0",
		"ipv6/conf/default/accept_ra":  "0",
		"ipv4/conf/all/rp_filter":      "0",
		"ipv4/conf/default/rp_filter":  "0",
		"ipv4/ping_group_range":        "0 2147483647",
		"ipv4/icmp_ratelimit":          "0",
		// Runtimes give pods this, so that their users may listen on 53 and 80.
		"ipv4/ip_unprivileged_port_start": "0",
	}
	routerSettings = map[string]string{
		"ipv4/ip_forward":          "1",
		"ipv6/conf/all/forwarding": "1",
		// Replies between two pods on one bridge must pass the NAT that their requests passed.
		"bridge/bridge-nf-call-iptables":  "1",
		"bridge/bridge-nf-call-ip6tables": "1",
	}
)

// place is netlink into one of the lab's namespaces.
type place struct {
	*netlink.Handle
	fd netns.NsHandle
}

func openPlace(name string) (*place, error) {
	fd, err := netns.GetFromPath(nsPath(name))
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", name, err)
	}
	h, err := netlink.NewHandleAt(fd, unix.NETLINK_ROUTE)
	if err != nil {
		fd.Close()
		return nil, fmt.Errorf("namespace %s: netlink: %w", name, err)
	}
	return &place{h, fd}, nil
}

func (p *place) close() {
	p.Handle.Close()
	p.fd.Close()
}

func ipNet(a netip.Addr, length int) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(length, a.BitLen())}
}

// address puts an address on a link without DAD. With length below the full one the kernel would
// add a route for the block too, which connected decides.
func (p *place) address(l netlink.Link, a netip.Addr, length int, connected bool) error {
	addr := &netlink.Addr{IPNet: ipNet(a, length), Flags: unix.IFA_F_NODAD}
	if !connected {
		addr.Flags |= unix.IFA_F_NOPREFIXROUTE
	}
	if err := p.AddrAdd(l, addr); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("address %s/%d on %s: %w", a, length, l.Attrs().Name, err)
	}
	return nil
}

// route sends dst over a link, through via where that is valid, with src as the sender's address of
// what the namespace itself sends.
func (p *place) route(l netlink.Link, dst netip.Prefix, via, src netip.Addr) error {
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(dst.Addr(), dst.Bits())}
	if via.IsValid() {
		r.Gw = via.AsSlice()
	} else {
		r.Scope = unix.RT_SCOPE_LINK
	}
	if src.IsValid() {
		r.Src = src.AsSlice()
	}
	if err := p.RouteReplace(r); err != nil {
		return fmt.Errorf("route %s via %s: %w", dst, via, err)
	}
	return nil
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func everywhere(v4 bool) netip.Prefix {
	if v4 {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// lanAddr is a node's address on the LAN in one family, and the one it likes to be known by.
func (n *Node) lanAddr(v4 bool) (lan, known netip.Addr) {
	for _, a := range n.Addrs {
		if a.Is4() != v4 {
			continue
		}
		if !lan.IsValid() {
			lan = a
		}
	}
	known = lan
	for _, a := range n.Known {
		if a.Is4() == v4 {
			return lan, a
		}
	}
	return lan, known
}

// wire makes the LAN, the outside network and the nodes with their bridges, and the routes between
// all of them.
func (s *State) wire() error {
	if err := makeNamespace(s.LAN, hostSettings); err != nil {
		return err
	}
	lan, err := openPlace(s.LAN)
	if err != nil {
		return err
	}
	defer lan.close()
	off := false
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan0"}, MulticastSnooping: &off}
	if err := errors.Join(lan.LinkAdd(br), lan.LinkSetUp(br)); err != nil {
		return fmt.Errorf("LAN: %w", err)
	}
	if err := makeNamespace(s.Outside.NetNS, hostSettings); err != nil {
		return err
	}
	if err := s.plug(lan, br, s.Outside.NetNS, "outside", s.Outside.Addrs); err != nil {
		return err
	}
	for i, n := range s.Nodes {
		if err := makeNamespace(n.NetNS, hostSettings); err != nil {
			return err
		}
		if err := within(n.Path(), func() error { return setSysctls(routerSettings) }); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
		if err := s.plug(lan, br, n.NetNS, fmt.Sprintf("n%d", i+1), n.Addrs); err != nil {
			return err
		}
	}
	for _, n := range s.Nodes {
		if err := s.bridgesAndRoutes(n); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
	}
	return s.outsideRoutes()
}

func setSysctls(settings map[string]string) error {
	for k, v := range settings {
		if err := setSysctl(k, v); err != nil {
			return err
		}
	}
	return nil
}

// plug connects a namespace's eth0 to the LAN. The first address of a family holds the whole LAN,
// others are single.
func (s *State) plug(lan *place, br netlink.Link, ns, port string, addrs []netip.Addr) error {
	p, err := openPlace(ns)
	if err != nil {
		return err
	}
	defer p.close()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: port, PeerNamespace: netlink.NsFd(lan.fd)}
	if err := p.LinkAdd(veth); err != nil {
		return fmt.Errorf("%s: eth0: %w", ns, err)
	}
	eth, err := p.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("%s: eth0: %w", ns, err)
	}
	peer, err := lan.LinkByName(port)
	if err != nil {
		return fmt.Errorf("%s: %s on the LAN: %w", ns, port, err)
	}
	if err := errors.Join(lan.LinkSetMaster(peer, br), lan.LinkSetUp(peer), p.LinkSetUp(eth)); err != nil {
		return fmt.Errorf("%s: %w", ns, err)
	}
	for i, a := range addrs {
		length := a.BitLen()
		if i == 0 {
			length = smallestBlock4
		} else if i == 1 {
			length = smallestBlock6
		}
		if err := p.address(eth, a, length, true); err != nil {
			return fmt.Errorf("%s: %w", ns, err)
		}
	}
	return nil
}

// bridgesAndRoutes makes a node's bridges, with the gateway addresses that the bridge plugin will
// find in place, and routes every pod by its own address: blocks of different nodes may overlap.
// What a pod believes to be on its link and is not, the node answers for (proxy ARP and ND).
func (s *State) bridgesAndRoutes(n *Node) error {
	p, err := openPlace(n.NetNS)
	if err != nil {
		return err
	}
	defer p.close()
	eth, err := p.LinkByName("eth0")
	if err != nil {
		return err
	}
	for i, out := range s.Outside.Addrs {
		_, src := n.lanAddr(i == 0)
		if err := p.route(eth, everywhere(i == 0), out, src); err != nil {
			return err
		}
	}
	bridges := make([]netlink.Link, len(n.Nets))
	for i := range n.Nets {
		if bridges[i], err = p.bridge(n, &n.Nets[i]); err != nil {
			return err
		}
	}
	for _, pod := range s.Pods {
		for _, a := range pod.Addrs {
			if err := p.podRoute(s, n, eth, bridges, pod, a); err != nil {
				return fmt.Errorf("pod %s: %w", pod, err)
			}
		}
	}
	for _, other := range s.Nodes {
		for _, a := range other.Known {
			if via, _ := other.lanAddr(a.Is4()); other == n || via == a {
				continue
			}
			if err := p.otherRoute(n, other, eth, bridges, a); err != nil {
				return fmt.Errorf("node %s: %w", other.Name, err)
			}
		}
	}
	return nil
}

func (p *place) podRoute(s *State, n *Node, eth netlink.Link, bridges []netlink.Link, pod *Pod, a netip.Addr) error {
	if pod.Node == n.Name {
		if pod.HostNetwork {
			return nil
		}
		src := n.Nets[pod.Net].Gateway6
		if a.Is4() {
			src = n.Nets[pod.Net].Gateway4
		}
		return p.route(bridges[pod.Net], single(a), netip.Addr{}, src)
	}
	if pod.HostNetwork {
		return nil // its node's address
	}
	return p.otherRoute(n, s.node(pod.Node), eth, bridges, a)
}

// otherRoute leads to an address of another node, or of a pod there.
func (p *place) otherRoute(n, other *Node, eth netlink.Link, bridges []netlink.Link, a netip.Addr) error {
	via, _ := other.lanAddr(a.Is4())
	_, src := n.lanAddr(a.Is4())
	if err := p.route(eth, single(a), via, src); err != nil {
		return err
	}
	return p.proxy(n, bridges, a)
}

// proxy lets the node answer neighbour solicitations for an IPv6 address that a bridge's pods take
// for on-link. (Proxy ARP needs no list.)
func (p *place) proxy(n *Node, bridges []netlink.Link, a netip.Addr) error {
	for i, net := range n.Nets {
		if a.Is4() || !net.Block6.IsValid() || !net.Block6.Contains(a) {
			continue
		}
		neigh := &netlink.Neigh{LinkIndex: bridges[i].Attrs().Index, Family: unix.AF_INET6, Flags: netlink.NTF_PROXY, IP: a.AsSlice()}
		if err := p.NeighSet(neigh); err != nil {
			return fmt.Errorf("answer for %s: %w", a, err)
		}
	}
	return nil
}

// bridge makes one bridge of a node. Its MAC is set, as the bridge plugin would do: else it changes
// with the lowest port.
func (p *place) bridge(n *Node, net *Net) (netlink.Link, error) {
	off := false
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: net.Bridge}, MulticastSnooping: &off}
	if err := p.LinkAdd(br); err != nil {
		return nil, fmt.Errorf("%s: %w", net.Bridge, err)
	}
	l, err := p.LinkByName(net.Bridge)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(p.LinkSetHardwareAddr(l, l.Attrs().HardwareAddr), p.LinkSetUp(l)); err != nil {
		return nil, fmt.Errorf("%s: %w", net.Bridge, err)
	}
	for _, g := range []struct {
		addr  netip.Addr
		block netip.Prefix
	}{{net.Gateway4, net.Block4}, {net.Gateway6, net.Block6}} {
		if !g.addr.IsValid() {
			continue
		}
		if err := p.address(l, g.addr, g.block.Bits(), false); err != nil {
			return nil, err
		}
	}
	return l, within(n.Path(), func() error {
		return setSysctls(map[string]string{
			"ipv4/conf/" + net.Bridge + "/proxy_arp":    "1",
			"ipv4/neigh/" + net.Bridge + "/proxy_delay": "0",
			"ipv6/conf/" + net.Bridge + "/proxy_ndp":    "1",
			"ipv6/neigh/" + net.Bridge + "/proxy_delay": "0",
		})
	})
}

// outsideRoutes lets the outside network reach pods by their node, and Services: its own NAT stands
// for the load balancer, so that the client's address is kept and replies come back to it.
func (s *State) outsideRoutes() error {
	p, err := openPlace(s.Outside.NetNS)
	if err != nil {
		return err
	}
	defer p.close()
	eth, err := p.LinkByName("eth0")
	if err != nil {
		return err
	}
	for _, pod := range s.Pods {
		for _, a := range pod.Addrs {
			if via, _ := s.node(pod.Node).lanAddr(a.Is4()); via != a {
				if err := p.route(eth, single(a), via, netip.Addr{}); err != nil {
					return fmt.Errorf("outside: %w", err)
				}
			}
		}
	}
	for _, n := range s.Nodes {
		addrs := slices.Clone(n.Known)
		for _, net := range n.Nets {
			addrs = append(addrs, net.Gateway4, net.Gateway6)
		}
		for _, g := range addrs {
			via, _ := n.lanAddr(g.Is4())
			if !g.IsValid() || via == g {
				continue
			}
			if err := p.route(eth, single(g), via, netip.Addr{}); err != nil {
				return fmt.Errorf("outside: %w", err)
			}
		}
	}
	for _, v := range s.VIPs {
		via, _ := s.Nodes[0].lanAddr(v.Addr.Is4())
		if err := p.route(eth, single(v.Addr), via, netip.Addr{}); err != nil {
			return fmt.Errorf("outside: %w", err)
		}
	}
	return nil
}

// addOutside makes an address a host of the outside network: it answers there and can send from
// there, and pods on its "link" are led to it by their node.
func (s *State) addOutside(a netip.Addr) error {
	if err := unicast(a); err != nil {
		return err
	}
	p, err := openPlace(s.Outside.NetNS)
	if err != nil {
		return err
	}
	defer p.close()
	eth, err := p.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := p.address(eth, a, a.BitLen(), true); err != nil {
		return err
	}
	if a.Is4() {
		return nil
	}
	for _, n := range s.Nodes {
		if err := s.proxyOutside(n, a); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
	}
	return nil
}

func (s *State) proxyOutside(n *Node, a netip.Addr) error {
	p, err := openPlace(n.NetNS)
	if err != nil {
		return err
	}
	defer p.close()
	bridges := make([]netlink.Link, len(n.Nets))
	for i, net := range n.Nets {
		if bridges[i], err = p.LinkByName(net.Bridge); err != nil {
			return err
		}
	}
	return p.proxy(n, bridges, a)
}
