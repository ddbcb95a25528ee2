package daemon

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Several nodes on one network, whose pods reach each other by routes:
//
//	lan ── br0 ── veth ── node 1: lan0 10.99.0.1, br0 10.88.1.1/24 ── pods 10.88.1.N
//	          └── veth ── node 2: lan0 10.99.0.2, br0 10.88.2.1/24 ── pods 10.88.2.N
type clusterLab struct {
	t     *testing.T
	lan   netns.NsHandle
	nodes []*node
}

// newClusterLab makes nodes without daemons.
func newClusterLab(t *testing.T, count int) *clusterLab {
	t.Helper()
	l := &clusterLab{t: t}
	for i := range count {
		l.nodes = append(l.nodes, newNodeAt(t, byte(1+i)))
	}
	l.lan = l.nodes[0].namespace(l.nodes[0].name + "-lan")
	h, err := netlink.NewHandleAt(l.lan, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		t.Fatal(err)
	}
	upIn(t, h, "br0")
	for i, n := range l.nodes {
		l.plug(h, i, n)
	}
	return l
}

func (l *clusterLab) plug(h *netlink.Handle, i int, n *node) {
	l.t.Helper()
	br, err := h.LinkByName("br0")
	n.must(err)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = fmt.Sprintf("port%d", i), br.Attrs().Index
	n.must(h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "lan0", PeerNamespace: netlink.NsFd(n.ns)}))
	upIn(l.t, h, attrs.Name)
	n.addr("lan0", l.addr(i).String()+"/24")
	n.up("lan0")
	for k, other := range l.nodes {
		if other != n {
			n.must(n.nl.RouteAdd(&netlink.Route{Dst: network(netip.PrefixFrom(other.v4(0), 24)), Gw: l.addr(k).AsSlice()}))
		}
	}
	n.must(exec.Command("nsenter", "--net=/run/netns/"+n.name, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward").Run())
}

func network(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// addr is a node's on the network between them.
func (l *clusterLab) addr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 99, 0, byte(1 + i)}) }

// start runs a node's daemon, joined to the others.
func (l *clusterLab) start(i int, lines ...string) *process {
	l.t.Helper()
	n := l.nodes[i]
	keys := filepath.Join(n.dir, "cluster.keys")
	n.must(os.WriteFile(keys, []byte("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"), 0o600))
	seed := 0
	if i == 0 {
		seed = len(l.nodes) - 1
	}
	text := fmt.Sprintf("cluster:\n  name: test\n  keyFile: %s\n  bind: %s:7946\n  seeds: [%s]\n", keys, l.addr(i), l.addr(seed))
	for _, line := range lines {
		text += "  " + line + "\n"
	}
	return n.start(text)
}

// cut takes a node off the network between them, or puts it back.
func (l *clusterLab) cut(i int, off bool) {
	l.t.Helper()
	h, err := netlink.NewHandleAt(l.lan, unix.NETLINK_ROUTE)
	if err != nil {
		l.t.Fatal(err)
	}
	defer h.Close()
	link, err := h.LinkByName(fmt.Sprintf("port%d", i))
	if err == nil && off {
		err = h.LinkSetDown(link)
	} else if err == nil {
		err = h.LinkSetUp(link)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// routed gives a pod a way to those of other nodes.
func (n *node) routed(name string) *pod {
	n.t.Helper()
	p := n.pod(name)
	h := p.handle()
	defer h.Close()
	route(n.t, h, n.v4(1).String())
	return p
}
