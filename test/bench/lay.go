package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// lay starts the servers of pair i and, where entries is not 0, puts rules in mode enforce on both
// of its ends. undo ends both.
func lay(l *lab.Lab, i int, name string, entries int, guarded bool) (p pair, undo func(), err error) {
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
	p = pair{name: name, client: client.Path(), server: server.Addrs[0]}
	err = firewall.Enter(server.Path(), func() error {
		stop, err := serve(p.server)
		if err == nil {
			undos = append(undos, stop)
		}
		return err
	})
	if err != nil || entries == 0 {
		return p, undo, err
	}
	ports := func(peer netip.Addr) policy.Side {
		s := policy.Side{Isolated: true}
		for _, port := range []uint16{connectPort, echoPort, sinkPort} {
			s.Entries = append(s.Entries, entry(peer, port))
		}
		return filled(s, entries)
	}
	for _, end := range []struct {
		pod   *lab.Pod
		sides policy.Sides
	}{
		{client, policy.Sides{Egress: ports(server.Addrs[0]), Ingress: filled(policy.Side{Isolated: true}, entries)}},
		{server, policy.Sides{Ingress: ports(client.Addrs[0]), Egress: filled(policy.Side{Isolated: true}, entries)}},
	} {
		remove, err := enforce(l.Nodes[0].Path(), end.pod, end.sides, guarded)
		if err != nil {
			return p, undo, fmt.Errorf("%s: %w", end.pod, err)
		}
		undos = append(undos, remove)
	}
	return p, undo, nil
}

func entry(peer netip.Addr, port uint16) policy.Entry {
	return policy.Entry{Peer: netip.PrefixFrom(peer, peer.BitLen()), Protocol: identity.TCP, Port: port, EndPort: port, Rule: "bench"}
}

// filled adds entries for peers that do not exist until the side has n.
func filled(s policy.Side, n int) policy.Side {
	for i := len(s.Entries); i < n; i++ {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 198<<24|18<<16|uint32(i)) // 198.18.0.0/15: for benchmarks (RFC 2544)
		s.Entries = append(s.Entries, entry(netip.AddrFrom4(a), 80))
	}
	slices.SortFunc(s.Entries, func(a, b policy.Entry) int {
		if c := a.Peer.Addr().Compare(b.Peer.Addr()); c != 0 {
			return c
		}
		return int(a.Port) - int(b.Port)
	})
	return s
}

func enforce(node string, pod *lab.Pod, sides policy.Sides, guarded bool) (remove func(), err error) {
	ifc, err := eth0(node, pod)
	if err != nil {
		return nil, err
	}
	if !guarded {
		ifc.Host, ifc.HostIndex = "", 0
	}
	spec := firewall.Spec{Mode: policy.Enforce, Sides: sides, Interfaces: []firewall.Interface{ifc}}
	ns, err := firewall.Open(firewall.Config{NetNS: pod.Path(), Node: node, Interfaces: spec.Interfaces})
	if err != nil {
		return nil, err
	}
	if _, err := ns.Apply(firewall.Compile(spec)); err != nil {
		ns.Close()
		return nil, err
	}
	return func() { ns.Remove() }, nil
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
