package netpol

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// policies is a random set of all kinds, as a file says it: what cannot be written or held together is
// drawn again. DNS names are left out: what they mean, answers say. Names are of this set alone: a file
// with a shadow of what is in force would leave that in force.
func (d dice) policies() []policy.Policy {
	series := d.Uint32()
	for {
		var list []policy.Policy
		for i := range d.IntN(6) {
			list = append(list, d.policy(fmt.Sprintf("p%d-%x", i, series)))
		}
		for i := range d.IntN(4) {
			list = append(list, d.clusterPolicy(fmt.Sprintf("c%d-%x", i, series)))
		}
		if text, err := policy.MarshalAll(list); err == nil {
			// Read again, so that the daemon and the evaluator begin with the same words.
			if again, err := policy.Parse("policies.yaml", text); err == nil {
				return again
			}
		}
	}
}

func (d dice) selector() metav1.LabelSelector {
	s := metav1.LabelSelector{}
	if d.chance(20) {
		return s
	}
	if d.chance(60) {
		s.MatchLabels = map[string]string{pick(d, keys...): pick(d, values...)}
	}
	for d.chance(30) {
		e := metav1.LabelSelectorRequirement{Key: pick(d, keys...), Operator: pick(d, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)}
		if e.Operator == metav1.LabelSelectorOpIn || e.Operator == metav1.LabelSelectorOpNotIn {
			e.Values = []string{pick(d, values...)}
			if v := pick(d, values...); v != e.Values[0] {
				e.Values = append(e.Values, v)
			}
		}
		s.MatchExpressions = append(s.MatchExpressions, e)
	}
	return s
}

// addr draws from where somebody of a world may be.
func (d dice) addr() netip.Addr {
	b := func(n int) byte { return byte(d.IntN(n)) }
	switch d.IntN(10) {
	case 0:
		return netip.AddrFrom4([4]byte{203, 0, 113, b(4)})
	case 1:
		return netip.AddrFrom4([4]byte{10, 7, 0, b(4)})
	case 2:
		return netip.AddrFrom4([4]byte{10, 96, 0, 8 + b(8)})
	case 3, 4, 5:
		a := netip.MustParseAddr("fd00:8::").As16()
		a[5], a[15] = b(3), pick(d, 0x10+b(10), 0x20+b(4), 0x77)
		return netip.AddrFrom16(a)
	case 6:
		a := netip.MustParseAddr("2001:db8::").As16()
		a[5], a[15] = b(2), b(4)
		return netip.AddrFrom16(a)
	}
	return netip.AddrFrom4([4]byte{10, 8, b(3), pick(d, 8+b(16), 77)})
}

func (d dice) block() *networkingv1.IPBlock {
	a := d.addr()
	bits := pick(d, 0, 8, 16, 22, 24, 27, 28, 29, 31, 32)
	if a.Is6() {
		bits = pick(d, 0, 16, 32, 47, 48, 64, 120, 124, 127, 128)
	}
	p := netip.PrefixFrom(a, bits).Masked()
	b := &networkingv1.IPBlock{CIDR: p.String()}
	for d.chance(40) {
		for range 20 {
			e := netip.PrefixFrom(d.addr(), min(a.BitLen(), bits+1+d.IntN(12)))
			if e.Addr().Is4() == a.Is4() && p.Contains(e.Addr()) && e.Bits() > bits && e.Bits() <= a.BitLen() {
				b.Except = append(b.Except, e.Masked().String())
				break
			}
		}
	}
	return b
}

func (d dice) peer(kind string) policy.Peer {
	native := kind == policy.KindPolicy
	if native && d.chance(30) {
		return policy.Peer{Network: pick(d, policy.NetworkWorld, policy.NetworkNode, policy.NetworkDNS, policy.NetworkCluster, policy.NetworkMetadata)}
	}
	if native && d.chance(15) {
		return policy.Peer{Service: &policy.ServiceRef{Namespace: pick(d, spaces...), Name: "s" + strconv.Itoa(d.IntN(4))}}
	}
	if kind != policy.KindClusterNetworkPolicy && d.chance(40) {
		return policy.Peer{IPBlock: d.block()}
	}
	p := policy.Peer{}
	if d.chance(60) {
		s := d.selector()
		p.PodSelector = &s
	}
	if d.chance(40) || p.PodSelector == nil || kind == policy.KindClusterNetworkPolicy {
		s := d.selector()
		p.NamespaceSelector = &s
	}
	return p
}

func (d dice) port(kind string) policy.Port {
	protocols := []identity.Protocol{identity.TCP, identity.TCP, identity.UDP, identity.UDP, identity.SCTP}
	if kind == policy.KindPolicy {
		protocols = append(protocols, identity.ICMP, identity.ICMPv6)
	}
	p := policy.Port{Protocol: pick(d, protocols...)}
	if p.Protocol.IsICMP() {
		if d.chance(70) {
			p = policy.PortNumber(p.Protocol, pick[uint16](d, 0, 8, 128, 255))
		}
		return p
	}
	switch d.IntN(6) {
	case 0:
		if kind != policy.KindClusterNetworkPolicy {
			return p
		}
	case 1:
		if kind != policy.KindClusterNetworkPolicy {
			return policy.PortName(p.Protocol, pick(d, portNames...))
		}
	case 2:
		p = policy.PortNumber(p.Protocol, pick(d, numbers[:7]...))
		end := p.Port.IntVal + 1 + int32(d.IntN(int(65535-p.Port.IntVal)))
		if d.chance(50) {
			end = min(65535, p.Port.IntVal+1+int32(d.IntN(4)))
		}
		p.EndPort = &end
		return p
	}
	return policy.PortNumber(p.Protocol, pick(d, numbers...))
}

func (d dice) rules(kind string) []policy.Rule {
	var out []policy.Rule
	for range d.IntN(4) {
		r := policy.Rule{}
		for d.chance(65) && len(r.Peers) < 4 {
			r.Peers = append(r.Peers, d.peer(kind))
		}
		for d.chance(50) && len(r.Ports) < 4 {
			r.Ports = append(r.Ports, d.port(kind))
		}
		if kind == policy.KindPolicy && d.chance(35) {
			r.Action = policy.ActionDeny
		}
		if kind == policy.KindPolicy && d.chance(8) {
			r.Expires = pick(d, time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC))
		}
		out = append(out, r)
	}
	return out
}

func (d dice) policy(name string) policy.Policy {
	p := policy.Policy{Kind: pick(d, policy.KindNetworkPolicy, policy.KindPolicy), Namespace: pick(d, spaces...), Name: name}
	p.Spec.PodSelector = d.selector()
	p.Spec.PolicyTypes = pick(d, nil, []networkingv1.PolicyType{"Ingress"}, []networkingv1.PolicyType{"Egress"}, []networkingv1.PolicyType{"Ingress", "Egress"})
	p.Spec.Ingress, p.Spec.Egress = d.rules(p.Kind), d.rules(p.Kind)
	if p.Kind == policy.KindPolicy && d.chance(40) {
		p.Spec.Priority = int32(1 + d.IntN(3))
	}
	if p.Kind == policy.KindPolicy && d.chance(30) {
		for _, rules := range [][]policy.Rule{p.Spec.Ingress, p.Spec.Egress} {
			for i := range rules {
				rules[i].Action = policy.ActionDeny
			}
		}
	}
	p.Shadow = d.chance(5)
	return p
}

// clusterPolicy is a policy of the admin or the baseline tier.
func (d dice) clusterPolicy(name string) policy.Policy {
	p := policy.Policy{Kind: policy.KindClusterNetworkPolicy, Name: name}
	p.Spec.Tier = pick(d, policy.AdminTier, policy.AdminTier, policy.BaselineTier)
	p.Spec.Priority = int32(d.IntN(4))
	namespaces := d.selector()
	p.Spec.NamespaceSelector = &namespaces
	if d.chance(60) {
		p.Spec.PodSelector = d.selector()
	}
	p.Spec.Ingress, p.Spec.Egress = d.clusterRules(policy.Ingress), d.clusterRules(policy.Egress)
	return p
}

func (d dice) clusterRules(dir policy.Direction) []policy.Rule {
	out := d.rules(policy.KindClusterNetworkPolicy)
	for i := range out {
		r := &out[i]
		r.Action = pick(d, policy.ActionAllow, policy.ActionDeny, policy.ActionDeny, policy.ActionPass)
		if len(r.Peers) == 0 || dir == policy.Ingress && len(r.Peers) == 0 {
			r.Peers = []policy.Peer{d.peer(policy.KindClusterNetworkPolicy)}
		}
		if dir == policy.Ingress {
			continue
		}
		if d.chance(20) {
			s := d.selector()
			r.Peers = append(r.Peers, policy.Peer{NodeSelector: &s})
		}
		for d.chance(30) {
			r.Peers = append(r.Peers, policy.Peer{IPBlock: &networkingv1.IPBlock{CIDR: d.block().CIDR}})
		}
	}
	return out
}
