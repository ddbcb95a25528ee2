package kube

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// node reads a Node's labels and its own addresses, internal and external ones. What it lists as
// names (Hostname, InternalDNS) says nothing of addresses.
func (l *loader) node(o object) error {
	var n corev1.Node
	if err := o.decode(&n); err != nil {
		return err
	}
	if n.Name == "" {
		return o.errorf(o.at("metadata"), "Node: metadata.name: missing")
	}
	out := identity.NodeInfo{Labels: identity.Labels(n.Labels)}
	var errs []error
	for i, a := range n.Status.Addresses {
		if a.Type != corev1.NodeInternalIP && a.Type != corev1.NodeExternalIP {
			continue
		}
		path := fmt.Sprintf("status.addresses[%d].address", i)
		addr, err := parseAddr(a.Address)
		if err != nil {
			errs = append(errs, o.errorf(o.at(path), "Node %s: %s: %w", n.Name, path, err))
		} else if !slices.Contains(out.Addrs, addr) {
			out.Addrs = append(out.Addrs, addr)
		}
	}
	slices.SortFunc(out.Addrs, netip.Addr.Compare)
	l.once(o, n.Name)
	l.inv.Nodes[n.Name] = out
	return errors.Join(errs...)
}
