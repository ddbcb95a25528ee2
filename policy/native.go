package policy

import (
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// The JSON Schema of the kind is made from the types below; the comments of fields are its
// descriptions, for people who write policies in an editor.

// NativeType is the type of the YAML of bulkhead.dev/v1alpha1, for what is generated from it.
func NativeType() reflect.Type { return reflect.TypeFor[nativeDocument]() }

// A Policy says what the selected workloads may and may not do. Its field names are NetworkPolicy's.
type nativeDocument struct {
	// Always bulkhead.dev/v1alpha1.
	APIVersion string `json:"apiVersion"`
	// Always Policy.
	Kind string `json:"kind"`
	// Name, namespace, labels and annotations.
	Metadata nativeMeta `json:"metadata"`
	// What the policy says.
	Spec nativeSpec `json:"spec"`
}

type nativeMeta struct {
	// The policy's name, unique in its namespace.
	Name string `json:"name"`
	// The namespace whose workloads it is about. Not given: default.
	Namespace string `json:"namespace,omitempty"`
	// Labels of the policy itself.
	Labels map[string]string `json:"labels,omitempty"`
	// Annotations of the policy itself.
	Annotations map[string]string `json:"annotations,omitempty"`
}

type nativeSpec struct {
	// enforce: in force. shadow: denies nothing, and tells what it would deny. Not given: enforce.
	Mode string `json:"mode,omitempty"`
	// Which policies of the namespace are asked first: the lower number. At the same priority denying rules come before allowing ones. Not given: 1000, which is every NetworkPolicy's.
	Priority *int32 `json:"priority,omitempty"`
	// Severity of alerts about what the policy denies. Not given: as the alert's kind has it.
	Severity string `json:"severity,omitempty"`
	// Why the policy is there, told in explanations and alerts.
	Reason string `json:"reason,omitempty"`
	// What becomes of what is denied. Reject: it is answered with a TCP reset or an ICMP error, and applications fail at once. Drop: no answer. Not given: as the daemon's configuration says.
	OnDeny string `json:"onDeny,omitempty"`
	// The workloads of the namespace that it is about. {} is all of them.
	PodSelector metav1.LabelSelector `json:"podSelector"`
	// The directions that the policy isolates: what no rule allows is denied. Not given: Ingress, and Egress where there are egress rules; none where all rules deny.
	PolicyTypes []networkingv1.PolicyType `json:"policyTypes,omitempty"`
	// Who may, or may not, connect to the workloads.
	Ingress []nativeIngress `json:"ingress,omitempty"`
	// Whom the workloads may, or may not, connect to.
	Egress []nativeEgress `json:"egress,omitempty"`
}

type nativeIngress struct {
	// Name of the rule, for people.
	Name string `json:"name,omitempty"`
	// Allow or Deny. Not given: Allow.
	Action string `json:"action,omitempty"`
	// The rule means nothing from then on: a date (2026-12-31, its first moment in UTC) or a time (2026-12-31T18:00:00Z).
	Expires *expiry `json:"expires,omitempty"`
	// Severity of alerts about what the rule denies. Not given: the policy's.
	Severity string `json:"severity,omitempty"`
	// Why the rule is there, told in explanations and alerts.
	Reason string `json:"reason,omitempty"`
	// Who connects: any of these. Not given or empty: everybody.
	From []nativePeer `json:"from,omitempty"`
	// On which ports: any of these. Not given or empty: every protocol and port, ICMP included.
	Ports []nativePort `json:"ports,omitempty"`
}

type nativeEgress struct {
	// Name of the rule, for people.
	Name string `json:"name,omitempty"`
	// Allow or Deny. Not given: Allow.
	Action string `json:"action,omitempty"`
	// The rule means nothing from then on: a date (2026-12-31, its first moment in UTC) or a time (2026-12-31T18:00:00Z).
	Expires *expiry `json:"expires,omitempty"`
	// Severity of alerts about what the rule denies. Not given: the policy's.
	Severity string `json:"severity,omitempty"`
	// Why the rule is there, told in explanations and alerts.
	Reason string `json:"reason,omitempty"`
	// Whom they connect to: any of these. Not given or empty: everybody.
	To []nativeEgressPeer `json:"to,omitempty"`
	// On which ports: any of these. Not given or empty: every protocol and port, ICMP included.
	Ports []nativePort `json:"ports,omitempty"`
}

// One kind of other end: podSelector and namespaceSelector, alone or together, or one of the others.
type nativePeer struct {
	// Workloads by their labels; without namespaceSelector those of the policy's namespace. {} is all.
	PodSelector *metav1.LabelSelector `json:"podSelector,omitempty"`
	// Namespaces by their labels; with podSelector: such workloads of such namespaces. {} is all.
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	// A block of addresses without some blocks in it. It admits workloads with such addresses too.
	IPBlock *networkingv1.IPBlock `json:"ipBlock,omitempty"`
	// A named network: world, cluster, node, dns, metadata, or one of the daemon's configuration.
	Network string `json:"network,omitempty"`
	// The workloads behind a Service.
	Service *ServiceRef `json:"service,omitempty"`
}

// One kind of other end: podSelector and namespaceSelector, alone or together, or one of the others.
type nativeEgressPeer struct {
	nativePeer `json:",inline"`
	// A DNS name, or *. and a name for everything below it. Its addresses are those that the workload's own resolvers answered with.
	DNSName string `json:"dnsName,omitempty"`
}

// A protocol with a port, a range of ports, or all of them.
type nativePort struct {
	// TCP, UDP, SCTP, ICMP or ICMPv6. Not given: TCP.
	Protocol *string `json:"protocol,omitempty"`
	// The port on which the server listens, or the name of its container port; the type for ICMP and ICMPv6. Not given: all.
	Port *intstr.IntOrString `json:"port,omitempty"`
	// The last port of a range that begins with port.
	EndPort *int32 `json:"endPort,omitempty"`
}

// expiry is a date or a time.
type expiry struct{ time.Time }

func (e *expiry) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("want a date (2026-12-31) or a time (2026-12-31T18:00:00Z), got %s", shorten(string(text)))
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			if t.Year() < 2000 || t.Year() > 9999 {
				return fmt.Errorf("%q: no year that a policy could end in", shorten(s))
			}
			e.Time = t.UTC()
			return nil
		}
	}
	return fmt.Errorf("%q: want a date (2026-12-31) or a time (2026-12-31T18:00:00Z)", shorten(s))
}

// The words of spec.mode and of the annotation that stands for it in other kinds.
const (
	ModeAnnotation = "bulkhead.dev/mode"
	ModeEnforce    = "enforce"
	ModeShadow     = "shadow"
)

// Severities of alerts, the mildest first.
var severities = []string{"low", "medium", "high", "critical"}

var nativeActions = []actionName{{"Allow", ActionAllow}, {"Deny", ActionDeny}}

type actionName struct {
	name   string
	action Action
}

// fromNative brings a decoded document to the one form. What only names can say wrongly is found
// here, the rest in check.
func fromNative(d *nativeDocument) (Policy, []problem) {
	c := &converter{}
	p := Policy{
		Kind: KindPolicy, Namespace: d.Metadata.Namespace, Name: d.Metadata.Name,
		Labels: d.Metadata.Labels, Annotations: d.Metadata.Annotations,
		Spec:   Spec{PodSelector: d.Spec.PodSelector, PolicyTypes: d.Spec.PolicyTypes, Severity: d.Spec.Severity, Reason: d.Spec.Reason},
		Shadow: c.mode("spec.mode", d.Spec.Mode),
	}
	p.Spec.OnDeny = c.onDeny("spec.onDeny", d.Spec.OnDeny)
	if _, has := d.Metadata.Annotations[OnDenyAnnotation]; has {
		c.add("metadata.annotations["+OnDenyAnnotation+"]", "%s is for other kinds; a %s has spec.onDeny", OnDenyAnnotation, KindPolicy)
	}
	if _, has := d.Metadata.Annotations[ModeAnnotation]; has {
		c.add("metadata.annotations["+ModeAnnotation+"]", "%s is for other kinds; a %s has spec.mode", ModeAnnotation, KindPolicy)
	}
	if d.Spec.Priority != nil {
		if p.Spec.Priority = *d.Spec.Priority; p.Spec.Priority < 1 {
			c.add("spec.priority", "priority %d: out of range 1-1000", p.Spec.Priority)
		}
	}
	for i, r := range d.Spec.Ingress {
		at := fmt.Sprintf("spec.ingress[%d]", i)
		rule := c.rule(at, r.Name, r.Action, r.Expires, r.Severity, r.Reason)
		for _, x := range r.From {
			rule.Peers = append(rule.Peers, x.peer())
		}
		rule.Ports = c.nativePorts(at, r.Ports)
		p.Spec.Ingress = append(p.Spec.Ingress, rule)
	}
	for i, r := range d.Spec.Egress {
		at := fmt.Sprintf("spec.egress[%d]", i)
		rule := c.rule(at, r.Name, r.Action, r.Expires, r.Severity, r.Reason)
		for _, x := range r.To {
			peer := x.peer()
			peer.DNSName = x.DNSName
			rule.Peers = append(rule.Peers, peer)
		}
		rule.Ports = c.nativePorts(at, r.Ports)
		p.Spec.Egress = append(p.Spec.Egress, rule)
	}
	return p, c.bad
}

func (x *nativePeer) peer() Peer {
	return Peer{PodSelector: x.PodSelector, NamespaceSelector: x.NamespaceSelector, IPBlock: x.IPBlock, Network: x.Network, Service: x.Service}
}

func (c *converter) rule(at, name, action string, expires *expiry, severity, reason string) Rule {
	r := Rule{Name: name, Severity: severity, Reason: reason}
	if action != "" {
		r.Action = c.action(at+".action", action, nativeActions)
	}
	if expires != nil {
		r.Expires = expires.Time
	}
	return r
}

func (c *converter) nativePorts(at string, in []nativePort) []Port {
	var out []Port
	for i, x := range in {
		protocol := c.protocol(fmt.Sprintf("%s.ports[%d].protocol", at, i), x.Protocol, nativeProtocols)
		out = append(out, Port{Protocol: protocol, Port: x.Port, EndPort: x.EndPort})
	}
	return out
}
