package flow

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// peersOf writes the peer of a group, seen from a policy of svc. No peers: the remark says why.
// With peers, a remark names what they mean beyond what was seen.
func (s *suggester) peersOf(svc identity.Service, g peerGroup, dir policy.Direction) ([]policy.Peer, string) {
	switch g.peer.Kind {
	case identity.Pod:
		return s.servicePeer(svc, g.peer.Service)
	case identity.Node:
		if dir == policy.Ingress {
			return nil, "The node itself is always let in: " + list(portTexts(g.edges), fewLines) + "."
		}
		return s.named(policy.NetworkNode, s.view.NodeAddrs)
	case identity.Resolver:
		return s.named(policy.NetworkDNS, s.view.Resolvers)
	case identity.Network:
		prefixes := s.view.Networks[g.peer.Name]
		switch {
		case len(prefixes) == 0:
			return nil, fmt.Sprintf("Left out: network %s is configured no more.", clean(g.peer.Name))
		case s.Format == Native:
			return []policy.Peer{{Network: g.peer.Name}}, ""
		}
		return blocks(prefixes), ""
	case identity.VIP:
		return blocks(dialledAddrs(g.edges)), "No workload behind this Service is known: its own address and port, as they were dialled."
	}
	return s.worldPeer(g, dir)
}

// servicePeer selects another service's workloads.
func (s *suggester) servicePeer(svc, peer identity.Service) ([]policy.Peer, string) {
	if len(s.members[peer]) == 0 {
		return nil, fmt.Sprintf("Left out: no workload of %s is known now.", clean(peer.String()))
	}
	selector, exact := s.selectorOf(peer)
	p := policy.Peer{PodSelector: &selector}
	if peer.Namespace != svc.Namespace {
		p.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": peer.Namespace}}
	}
	if exact {
		return []policy.Peer{p}, ""
	}
	return []policy.Peer{p}, fmt.Sprintf("Wider than what was seen: no labels tell %s from other workloads of namespace %s.", clean(peer.Name), clean(peer.Namespace))
}

// named is a peer that the native kind has a name for; the other kind gets its addresses of today.
func (s *suggester) named(network string, addrs []netip.Addr) ([]policy.Peer, string) {
	if s.Format == Native {
		return []policy.Peer{{Network: network}}, ""
	}
	if len(addrs) == 0 {
		return nil, fmt.Sprintf("Left out: no address of %s is known now.", network)
	}
	return blocks(single(addrs)), fmt.Sprintf("The addresses of %s, as they are now.", network)
}

// worldPeer writes few addresses one by one, and many as the world.
func (s *suggester) worldPeer(g peerGroup, dir policy.Direction) ([]policy.Peer, string) {
	if !g.wide {
		var addrs []netip.Addr
		for _, e := range g.edges {
			addrs = append(addrs, peerEnd(e, dir).Addr)
		}
		return blocks(single(addrs)), ""
	}
	remark := fmt.Sprintf("Wider than what was seen: more than %d addresses, so the whole world.", fewAddresses)
	if s.Format == Native {
		return []policy.Peer{{Network: policy.NetworkWorld}}, remark
	}
	var peers []policy.Peer
	for _, all := range identity.Everything {
		b := &networkingv1.IPBlock{CIDR: all.String()}
		for _, p := range identity.Union(s.view.PodBlocks) {
			if p.Addr().Is4() == all.Addr().Is4() && p.Bits() > 0 {
				b.Except = append(b.Except, p.String())
			}
		}
		peers = append(peers, policy.Peer{IPBlock: b})
	}
	if len(s.view.PodBlocks) == 0 {
		remark = strings.TrimSuffix(remark, ".") + ", and with it every workload."
	}
	return peers, remark
}

func dialledAddrs(edges []*Edge) []netip.Prefix {
	var out []netip.Addr
	for _, e := range edges {
		for _, it := range e.VIPs.Items {
			out = append(out, it.What.Key.Addr)
		}
	}
	return single(out)
}

// single is addresses as blocks, sorted, each once.
func single(addrs []netip.Addr) []netip.Prefix {
	out := make([]netip.Prefix, len(addrs))
	for i, a := range addrs {
		out[i] = identity.Single(a)
	}
	slices.SortFunc(out, identity.ComparePrefixes)
	return slices.Compact(out)
}

func blocks(prefixes []netip.Prefix) []policy.Peer {
	var out []policy.Peer
	for _, p := range prefixes {
		out = append(out, policy.Peer{IPBlock: &networkingv1.IPBlock{CIDR: p.String()}})
	}
	return out
}

// volatile labels differ between workloads of one service, or change with each roll-out.
var volatile = map[string]bool{
	"pod-template-hash": true, "controller-revision-hash": true, "pod-template-generation": true,
	"statefulset.kubernetes.io/pod-name": true, "apps.kubernetes.io/pod-index": true,
	"batch.kubernetes.io/job-completion-index": true, "batch.kubernetes.io/controller-uid": true, "controller-uid": true,
	"batch.kubernetes.io/job-name": true, "job-name": true,
}

// selectorOf finds the labels that select a service's workloads: the label that gave it its name,
// else the fewest that all of them share and no other workload of the namespace has. When no labels
// do, it returns all that they share, and false.
func (s *suggester) selectorOf(svc identity.Service) (sel metav1.LabelSelector, exact bool) {
	members := s.members[svc]
	shared := sharedLabels(members)
	for _, key := range s.LabelOrder {
		if shared[key] == svc.Name && s.selectsOnly(svc, map[string]string{key: svc.Name}) {
			return metav1.LabelSelector{MatchLabels: map[string]string{key: svc.Name}}, true
		}
	}
	keys := make([]string, 0, len(shared))
	for k := range shared {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int { return rankLabel(s.LabelOrder, a, b) })
	if !s.selectsOnly(svc, shared) {
		return metav1.LabelSelector{MatchLabels: shared}, false
	}
	// Drop what is not needed, the least telling first: what is left is as small as it gets.
	for i := len(keys) - 1; i >= 0; i-- {
		value := shared[keys[i]]
		delete(shared, keys[i])
		if len(shared) == 0 || !s.selectsOnly(svc, shared) {
			shared[keys[i]] = value
		}
	}
	return metav1.LabelSelector{MatchLabels: shared}, true
}

// sharedLabels are those that all have with the same value, that last, and that a selector can say.
func sharedLabels(members []*identity.Workload) map[string]string {
	out := map[string]string{}
	for k, val := range members[0].Labels {
		if !volatile[k] && len(validation.IsQualifiedName(k)) == 0 && len(validation.IsValidLabelValue(val)) == 0 {
			out[k] = val
		}
	}
	for _, w := range members[1:] {
		for k, val := range out {
			if have, ok := w.Labels[k]; !ok || have != val {
				delete(out, k)
			}
		}
	}
	return out
}

// rankLabel puts labels of the configured order first, then by name.
func rankLabel(order []string, a, b string) int {
	rank := func(k string) int {
		if i := slices.Index(order, k); i >= 0 {
			return i
		}
		return len(order)
	}
	if c := rank(a) - rank(b); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}

// selectsOnly says that no workload of the namespace but the service's has these labels. The
// service's own have them, since they are shared.
func (s *suggester) selectsOnly(svc identity.Service, labels map[string]string) bool {
	for _, w := range s.view.In(svc.Namespace) {
		if w.Service == svc || w.HostNetwork {
			continue
		}
		if hasAll(w.Labels, labels) {
			return false
		}
	}
	return true
}

func hasAll(have identity.Labels, want map[string]string) bool {
	for k, val := range want {
		if got, ok := have[k]; !ok || got != val {
			return false
		}
	}
	return true
}

var notInName = regexp.MustCompile(`[^a-z0-9.-]+`)

// objectName is a service's name as an object may be called. One that had to be changed gets a
// mark of the original, so that two do not become one.
func objectName(name string) string {
	if len(validation.IsDNS1123Subdomain(name)) == 0 {
		return name
	}
	h := fnv.New32a()
	h.Write([]byte(name))
	short := strings.Trim(notInName.ReplaceAllString(strings.ToLower(name), "-"), "-.")
	short = strings.Trim(short[:min(len(short), 200)], "-.")
	if short == "" || len(validation.IsDNS1123Subdomain(short)) > 0 {
		short = "service"
	}
	return fmt.Sprintf("%s-%08x", short, h.Sum32())
}
