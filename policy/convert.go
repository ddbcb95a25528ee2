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

// converter brings one document to the one form, and collects what its words say wrongly.
type converter struct {
	bad []problem
	// Cluster-wide kinds pack several peers or ports into one list item: where a path of the one form
	// stands in the document.
	places map[string]string
}

func (c *converter) add(path, format string, args ...any) {
	c.bad = append(c.bad, problem{path, fmt.Sprintf(format, args...)})
}

// mode reads enforce or shadow; nothing is enforce.
func (c *converter) mode(path, word string) (shadow bool) {
	switch word {
	case "", ModeEnforce:
		return false
	case ModeShadow:
		return true
	}
	known := []string{ModeEnforce, ModeShadow}
	c.add(path, "mode %q: want %s%s", shorten(word), list(known), didYouMean(word, known))
	return false
}

func (c *converter) action(path, word string, known []actionName) Action {
	names := make([]string, len(known))
	for i, k := range known {
		if names[i] = k.name; k.name == word {
			return k.action
		}
	}
	c.add(path, "action %q: want %s%s", shorten(word), list(names), didYouMean(word, names))
	return ActionAllow
}

// fromKubernetes brings a decoded NetworkPolicy to the one form.
func fromKubernetes(d *networkingv1.NetworkPolicy) (Policy, []problem) {
	c := &converter{}
	p := Policy{
		Kind: KindNetworkPolicy, Namespace: d.Namespace, Name: d.Name, Labels: d.Labels, Annotations: d.Annotations,
		Spec:   Spec{PodSelector: d.Spec.PodSelector, PolicyTypes: d.Spec.PolicyTypes},
		Shadow: c.mode("metadata.annotations["+ModeAnnotation+"]", d.Annotations[ModeAnnotation]),
	}
	p.Spec.OnDeny = c.onDenyAnnotation(d.Annotations)
	for i, r := range d.Spec.Ingress {
		p.Spec.Ingress = append(p.Spec.Ingress, c.kubernetesRule(r.From, r.Ports, fmt.Sprintf("spec.ingress[%d]", i)))
	}
	for i, r := range d.Spec.Egress {
		p.Spec.Egress = append(p.Spec.Egress, c.kubernetesRule(r.To, r.Ports, fmt.Sprintf("spec.egress[%d]", i)))
	}
	return p, c.bad
}

func (c *converter) kubernetesRule(from []networkingv1.NetworkPolicyPeer, in []networkingv1.NetworkPolicyPort, path string) Rule {
	var out Rule
	for _, x := range from {
		out.Peers = append(out.Peers, Peer{PodSelector: x.PodSelector, NamespaceSelector: x.NamespaceSelector, IPBlock: x.IPBlock})
	}
	for i, x := range in {
		protocol := c.protocol(fmt.Sprintf("%s.ports[%d].protocol", path, i), (*string)(x.Protocol), kubernetesProtocols)
		out.Ports = append(out.Ports, Port{Protocol: protocol, Port: x.Port, EndPort: x.EndPort})
	}
	return out
}

var (
	kubernetesProtocols = []identity.Protocol{identity.TCP, identity.UDP, identity.SCTP}
	nativeProtocols     = []identity.Protocol{identity.TCP, identity.UDP, identity.SCTP, identity.ICMP, identity.ICMPv6}
)

// protocol reads a protocol's name as the API spells it.
//
// "protocol represents the protocol (TCP, UDP, or SCTP) which traffic must match. If not specified,
// this field defaults to TCP."
func (c *converter) protocol(path string, name *string, known []identity.Protocol) identity.Protocol {
	if name == nil {
		return identity.TCP
	}
	names := make([]string, len(known))
	for i, p := range known {
		if names[i] = p.String(); names[i] == *name {
			return p
		}
	}
	c.add(path, "protocol %q: want one of %s%s", *name, list(names), didYouMean(*name, names))
	return identity.TCP
}
