package reach

import (
	"maps"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// vocabulary is all by which sets of policies can tell ends apart: labels that selectors ask for, names
// of ports, Services, and blocks of addresses.
type vocabulary struct {
	view      *identity.View
	podKeys   map[string]bool
	spaceKeys map[string]bool
	ports     map[string]bool
	services  map[policy.ServiceRef]bool
	networks  map[string]bool
	blocks    map[netip.Prefix]bool
	world     bool // blocks hold what the network "world" means
	bits      [2][]int
}

func newVocabulary(view *identity.View, sets ...*policy.Set) *vocabulary {
	v := &vocabulary{view: view, podKeys: map[string]bool{}, spaceKeys: map[string]bool{}, ports: map[string]bool{},
		services: map[policy.ServiceRef]bool{}, networks: map[string]bool{}, blocks: map[netip.Prefix]bool{}}
	for _, set := range sets {
		for _, p := range set.Policies() {
			v.selector(&p.Spec.PodSelector, v.podKeys)
			v.selector(p.Spec.NamespaceSelector, v.spaceKeys)
			for _, r := range slices.Concat(p.Spec.Ingress, p.Spec.Egress) {
				v.rule(p, r)
			}
		}
	}
	for _, p := range identity.Everything {
		v.blocks[p] = true
	}
	var seen [2][129]bool
	for p := range v.blocks {
		if f := family(p.Addr()); !seen[f][p.Bits()] {
			seen[f][p.Bits()] = true
			v.bits[f] = append(v.bits[f], p.Bits())
		}
	}
	for f := range v.bits {
		slices.Sort(v.bits[f])
		slices.Reverse(v.bits[f])
	}
	return v
}

func (v *vocabulary) rule(p *policy.Policy, r policy.Rule) {
	for _, port := range r.Ports {
		if port.Port != nil && port.Port.Type == intstr.String {
			v.ports[port.Port.StrVal] = true
		}
	}
	for _, peer := range r.Peers {
		v.selector(peer.PodSelector, v.podKeys)
		v.selector(peer.NamespaceSelector, v.spaceKeys)
		if peer.NamespaceSelector != nil {
			v.add(v.view.Cluster()) // a selector of everything means the pod blocks
		}
		if b := peer.IPBlock; b != nil {
			for _, text := range append([]string{b.CIDR}, b.Except...) {
				if block, err := netip.ParsePrefix(text); err == nil { // a set holds none that do not parse
					v.blocks[block.Masked()] = true
				}
			}
		}
		if s := peer.Service; s != nil {
			ref := *s
			if ref.Namespace == "" {
				ref.Namespace = p.Namespace
			}
			v.services[ref] = true
		}
		v.network(peer.Network)
	}
}

func (v *vocabulary) network(name string) {
	switch name {
	case "", policy.NetworkNode, policy.NetworkDNS:
	case policy.NetworkWorld:
		v.world = true
		v.add(v.view.World())
	case policy.NetworkCluster:
		v.add(v.view.Cluster())
	default:
		v.add(v.view.Networks[name])
	}
}

func (v *vocabulary) add(blocks []netip.Prefix) {
	for _, p := range blocks {
		v.blocks[p] = true
	}
}

func (v *vocabulary) selector(s *metav1.LabelSelector, keys map[string]bool) {
	if s == nil {
		return
	}
	for k := range s.MatchLabels {
		keys[k] = true
	}
	for _, e := range s.MatchExpressions {
		keys[e.Key] = true
	}
}

// innermost is the smallest block that holds an address. Blocks lie in one another or apart, so it
// tells all blocks that do.
func (v *vocabulary) innermost(a netip.Addr) netip.Prefix {
	for _, b := range v.bits[family(a)] {
		if p, err := a.Prefix(b); err == nil && v.blocks[p] {
			return p
		}
	}
	return netip.Prefix{}
}

// sortedBlocks lists the blocks: each comes right before those in it.
func (v *vocabulary) sortedBlocks() []netip.Prefix {
	return slices.SortedFunc(maps.Keys(v.blocks), identity.ComparePrefixes)
}
