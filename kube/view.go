package kube

import (
	"fmt"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// dnsServices are the names under which clusters run their resolver, in namespace kube-system.
var dnsServices = []string{"kube-dns", "coredns", "rke2-coredns-rke2-coredns"}

// View is the picture that an inventory gives without a cluster that runs, with upstream's rules where
// nothing is written: a node may talk to its own pods, and DNS is allowed by nothing but policies. It
// completes the inventory first.
//
// Errors: as of [Inventory.Complete]; more workloads, addresses or Services than are read of one
// cluster.
func (inv *Inventory) View() (*identity.View, error) {
	if err := inv.Complete(); err != nil {
		return nil, err
	}
	ix := identity.NewIndex("")
	ix.SetBuiltIns(true, false)
	ix.SetNamespaceLabels(inv.Namespaces)
	ix.SetNodes(inv.Nodes)
	ix.SetServices(inv.Services)
	for i := range inv.Services {
		if s := &inv.Services[i]; s.Namespace == "kube-system" && slices.Contains(dnsServices, s.Name) {
			ix.SetResolvers(s.Addrs)
		}
	}
	for _, w := range inv.Workloads {
		ix.Upsert(w)
	}
	if n := ix.Refused(); n > 0 {
		return nil, fmt.Errorf("inventory: %d workloads, addresses or Services are beyond what is read of one cluster", n)
	}
	return ix.View(), nil
}
