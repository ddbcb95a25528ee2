package policy

import (
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// problem is what is wrong at a path of a document: "spec.ingress[0].ports[1].endPort".
type problem struct {
	path string
	what string
}

// fromNative and fromKubernetes bring a decoded document to the one form. What only names can say
// wrongly (protocols) is found here, the rest in check.
func fromNative(d *nativeDocument) (Policy, []problem) {
	var bad []problem
	p := Policy{
		Kind: KindPolicy, Namespace: d.Metadata.Namespace, Name: d.Metadata.Name,
		Labels: d.Metadata.Labels, Annotations: d.Metadata.Annotations,
		Spec: Spec{PodSelector: d.Spec.PodSelector, PolicyTypes: d.Spec.PolicyTypes},
	}
	for i, r := range d.Spec.Ingress {
		peers, ports := nativeRule(r.From, r.Ports, fmt.Sprintf("spec.ingress[%d]", i), &bad)
		p.Spec.Ingress = append(p.Spec.Ingress, Rule{Peers: peers, Ports: ports})
	}
	for i, r := range d.Spec.Egress {
		peers, ports := nativeRule(r.To, r.Ports, fmt.Sprintf("spec.egress[%d]", i), &bad)
		p.Spec.Egress = append(p.Spec.Egress, Rule{Peers: peers, Ports: ports})
	}
	return p, bad
}

func nativeRule(from []nativePeer, in []nativePort, path string, bad *[]problem) ([]Peer, []Port) {
	var peers []Peer
	for _, x := range from {
		peers = append(peers, Peer{PodSelector: x.PodSelector, NamespaceSelector: x.NamespaceSelector, IPBlock: x.IPBlock, Network: x.Network})
	}
	var ports []Port
	for i, x := range in {
		protocol, err := protocolOf(x.Protocol, nativeProtocols)
		if err != nil {
			*bad = append(*bad, problem{fmt.Sprintf("%s.ports[%d].protocol", path, i), err.Error()})
		}
		ports = append(ports, Port{Protocol: protocol, Port: x.Port, EndPort: x.EndPort})
	}
	return peers, ports
}

func fromKubernetes(d *networkingv1.NetworkPolicy) (Policy, []problem) {
	var bad []problem
	p := Policy{
		Kind: KindNetworkPolicy, Namespace: d.Namespace, Name: d.Name, Labels: d.Labels, Annotations: d.Annotations,
		Spec: Spec{PodSelector: d.Spec.PodSelector, PolicyTypes: d.Spec.PolicyTypes},
	}
	for i, r := range d.Spec.Ingress {
		peers, ports := kubernetesRule(r.From, r.Ports, fmt.Sprintf("spec.ingress[%d]", i), &bad)
		p.Spec.Ingress = append(p.Spec.Ingress, Rule{Peers: peers, Ports: ports})
	}
	for i, r := range d.Spec.Egress {
		peers, ports := kubernetesRule(r.To, r.Ports, fmt.Sprintf("spec.egress[%d]", i), &bad)
		p.Spec.Egress = append(p.Spec.Egress, Rule{Peers: peers, Ports: ports})
	}
	return p, bad
}

func kubernetesRule(from []networkingv1.NetworkPolicyPeer, in []networkingv1.NetworkPolicyPort, path string, bad *[]problem) ([]Peer, []Port) {
	var peers []Peer
	for _, x := range from {
		peers = append(peers, Peer{PodSelector: x.PodSelector, NamespaceSelector: x.NamespaceSelector, IPBlock: x.IPBlock})
	}
	var ports []Port
	for i, x := range in {
		protocol, err := protocolOf((*string)(x.Protocol), kubernetesProtocols)
		if err != nil {
			*bad = append(*bad, problem{fmt.Sprintf("%s.ports[%d].protocol", path, i), err.Error()})
		}
		ports = append(ports, Port{Protocol: protocol, Port: x.Port, EndPort: x.EndPort})
	}
	return peers, ports
}

var (
	kubernetesProtocols = []identity.Protocol{identity.TCP, identity.UDP, identity.SCTP}
	nativeProtocols     = []identity.Protocol{identity.TCP, identity.UDP, identity.SCTP, identity.ICMP, identity.ICMPv6}
)

// protocolOf reads a protocol's name as the API spells it.
//
// "protocol represents the protocol (TCP, UDP, or SCTP) which traffic must match. If not specified,
// this field defaults to TCP."
func protocolOf(name *string, known []identity.Protocol) (identity.Protocol, error) {
	if name == nil {
		return identity.TCP, nil
	}
	names := make([]string, len(known))
	for i, p := range known {
		if names[i] = p.String(); names[i] == *name {
			return p, nil
		}
	}
	return identity.TCP, fmt.Errorf("protocol %q: want one of %s%s", *name, list(names), didYouMean(*name, names))
}
