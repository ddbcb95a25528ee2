package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/firewall"
)

// errHostNamespace says that a request names the daemon's own namespace: rules there would be the
// node's, not a container's.
var errHostNamespace = errors.New("is the node's own; a workload on the host's network cannot be told apart and is not taken")

// openNamespace opens the namespace at path and makes sure that it is not the node's. The caller
// closes it.
func openNamespace(path string) (*os.File, error) {
	own, err := firewall.IsOwnNamespace(path)
	if err == nil && own {
		return nil, fmt.Errorf("network namespace %s: %w", path, errHostNamespace)
	}
	if err != nil {
		return nil, err
	}
	return firewall.OpenNamespace(path)
}

// interfaces asks the kernel about the interfaces of a request: MAC, addresses where the request
// has none, and the host's end of the veth. What the kernel says counts: a name in a request is a
// hint, and a guard on somebody else's interface would judge somebody else's frames.
func interfaces(ns *os.File, wanted []api.CNIInterface) ([]firewall.Interface, error) {
	inside, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink in %s: %w", ns.Name(), err)
	}
	defer inside.Close()
	out := make([]firewall.Interface, 0, len(wanted))
	for _, want := range wanted {
		link, err := inside.LinkByName(want.Name)
		if err != nil {
			return nil, fmt.Errorf("interface %s in %s: %w", want.Name, ns.Name(), err)
		}
		ifc := firewall.Interface{Name: want.Name, MAC: link.Attrs().HardwareAddr}
		if ifc.Addrs, err = addresses(inside, link, want.Addrs); err != nil {
			return nil, fmt.Errorf("interface %s in %s: %w", want.Name, ns.Name(), err)
		}
		if ifc.Host, ifc.HostIndex, err = hostEnd(ns, link); err != nil {
			return nil, fmt.Errorf("interface %s in %s: %w", want.Name, ns.Name(), err)
		}
		out = append(out, ifc)
	}
	return out, nil
}

// hostEnd finds the other end of a veth in the daemon's own namespace. The pair must agree: each
// names the other's index, and the host's end names the container's namespace. It gives no name
// where there is no such end: another kind of device, or a veth that leads elsewhere.
func hostEnd(ns *os.File, link netlink.Link) (string, int, error) {
	if link.Type() != "veth" || link.Attrs().ParentIndex == 0 {
		return "", 0, nil
	}
	host, err := netlink.LinkByIndex(link.Attrs().ParentIndex)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, err
	}
	id, err := netlink.GetNetNsIdByFd(int(ns.Fd()))
	if err != nil {
		return "", 0, err
	}
	a := host.Attrs()
	if host.Type() != "veth" || a.ParentIndex != link.Attrs().Index || a.NetNsID != id || id < 0 {
		return "", 0, nil
	}
	return a.Name, a.Index, nil
}

// addresses reads what the request says, or what the kernel has where it says nothing. IPv6
// link-local addresses follow from the MAC and are left to package firewall.
func addresses(inside *netlink.Handle, link netlink.Link, wanted []string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, s := range wanted {
		a, err := parseAddr(s)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	if len(out) > 0 {
		return out, nil
	}
	list, err := inside.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	for _, a := range list {
		if addr, ok := netip.AddrFromSlice(a.IP); ok && !addr.IsLinkLocalUnicast() {
			out = append(out, addr.Unmap())
		}
	}
	return out, nil
}

// parseAddr reads an address with or without a prefix length.
func parseAddr(s string) (netip.Addr, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Addr().Unmap().WithZone(""), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("address %q: want an IP address, with or without prefix length", s)
	}
	return a.Unmap().WithZone(""), nil
}
