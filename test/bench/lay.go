package main

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// lay starts the servers of pair i and puts rules on both of its ends. undo ends both.
func lay(l *lab.Lab, i int, r rules) (p pair, undo func(), err error) {
	var undos []func()
	undo = func() {
		for _, u := range slices.Backward(undos) {
			u()
		}
	}
	client, err := l.Pod(podName("client", i))
	if err != nil {
		return p, undo, err
	}
	server, err := l.Pod(podName("server", i))
	if err != nil {
		return p, undo, err
	}
	p = pair{rules: r, client: client.Path(), server: server.Addrs[0]}
	err = firewall.Enter(server.Path(), func() error {
		stop, err := serve(p.server)
		if err == nil {
			undos = append(undos, stop)
		}
		return err
	})
	if err != nil || r.lay == nil {
		return p, undo, err
	}
	for _, pod := range []*lab.Pod{client, server} {
		e := end{node: l.Nodes[0].Path(), path: pod.Path(), peer: server.Addrs[0], router: firstOf(pod.Addrs[0])}
		if e.serves = pod == server; e.serves {
			e.peer = client.Addrs[0]
		}
		if e.ifc, err = eth0(e.node, pod); err != nil {
			return p, undo, err
		}
		remove, err := r.lay(e, r.pairs)
		if err != nil {
			return p, undo, fmt.Errorf("%s: %w", pod, err)
		}
		undos = append(undos, remove)
	}
	return p, undo, nil
}

// firstOf is the first address of a pod's block, which the node has.
func firstOf(a netip.Addr) netip.Addr {
	return netip.PrefixFrom(a, 24).Masked().Addr().Next()
}

// eth0 asks the kernel for the pod's interface and its host end.
func eth0(node string, pod *lab.Pod) (firewall.Interface, error) {
	inside, err := linkIn(pod.Path(), func(h *netlink.Handle) (netlink.Link, error) { return h.LinkByName("eth0") })
	if err != nil {
		return firewall.Interface{}, err
	}
	host, err := linkIn(node, func(h *netlink.Handle) (netlink.Link, error) { return h.LinkByIndex(inside.Attrs().ParentIndex) })
	if err != nil {
		return firewall.Interface{}, err
	}
	return firewall.Interface{Name: "eth0", Host: host.Attrs().Name, HostIndex: host.Attrs().Index,
		MAC: inside.Attrs().HardwareAddr, Addrs: pod.Addrs}, nil
}

func linkIn(path string, find func(*netlink.Handle) (netlink.Link, error)) (netlink.Link, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h, err := netlink.NewHandleAt(netns.NsHandle(f.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return find(h)
}

func podName(role string, i int) string { return fmt.Sprintf("bench/%s-%d", role, i) }

func manifests(pairs int) string {
	var b strings.Builder
	for i := range pairs {
		for _, role := range []string{"client", "server"} {
			fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Pod\nmetadata: {name: %s-%d, namespace: bench, labels: {app: %s-%d}}\nspec: {containers: [{name: c, image: none}]}\n",
				role, i, role, i)
		}
	}
	return b.String()
}
