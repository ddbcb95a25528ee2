package policy

import (
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// clusterDocument is ClusterNetworkPolicy as policy.networking.k8s.io/v1alpha2 and v1beta1 have it,
// which are the same. The types are our own since upstream's module (sigs.k8s.io/network-policy-api)
// needs a newer Go and newer Kubernetes modules than this program.
type clusterDocument struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   metav1.ObjectMeta `json:"metadata"`
	Spec       clusterSpec       `json:"spec"`
	Status     map[string]any    `json:"status,omitempty"` // read over
}

type clusterSpec struct {
	Tier     string           `json:"tier"`
	Priority *int32           `json:"priority"`
	Subject  clusterSubject   `json:"subject"`
	Ingress  []clusterIngress `json:"ingress,omitempty"`
	Egress   []clusterEgress  `json:"egress,omitempty"`
}

type clusterSubject struct {
	Namespaces *metav1.LabelSelector `json:"namespaces,omitempty"`
	Pods       *clusterPods          `json:"pods,omitempty"`
}

type clusterPods struct {
	NamespaceSelector metav1.LabelSelector `json:"namespaceSelector"`
	PodSelector       metav1.LabelSelector `json:"podSelector"`
}

type clusterIngress struct {
	Name      string               `json:"name,omitempty"`
	Action    string               `json:"action"`
	From      []clusterIngressPeer `json:"from"`
	Protocols []clusterProtocol    `json:"protocols,omitempty"`
}

type clusterEgress struct {
	Name      string              `json:"name,omitempty"`
	Action    string              `json:"action"`
	To        []clusterEgressPeer `json:"to"`
	Protocols []clusterProtocol   `json:"protocols,omitempty"`
}

type clusterIngressPeer struct {
	Namespaces *metav1.LabelSelector `json:"namespaces,omitempty"`
	Pods       *clusterPods          `json:"pods,omitempty"`
}

type clusterEgressPeer struct {
	Namespaces  *metav1.LabelSelector `json:"namespaces,omitempty"`
	Pods        *clusterPods          `json:"pods,omitempty"`
	Nodes       *metav1.LabelSelector `json:"nodes,omitempty"`
	Networks    []string              `json:"networks,omitempty"`
	DomainNames []string              `json:"domainNames,omitempty"`
}

type clusterProtocol struct {
	TCP                  *clusterPorts `json:"tcp,omitempty"`
	UDP                  *clusterPorts `json:"udp,omitempty"`
	SCTP                 *clusterPorts `json:"sctp,omitempty"`
	DestinationNamedPort string        `json:"destinationNamedPort,omitempty"`
}

type clusterPorts struct {
	DestinationPort *clusterPort `json:"destinationPort,omitempty"`
}

type clusterPort struct {
	Number *int32            `json:"number,omitempty"`
	Range  *clusterPortRange `json:"range,omitempty"`
}

type clusterPortRange struct {
	Start int32 `json:"start"`
	End   int32 `json:"end"`
}

// Bounds of the API: how many rules a direction has, and how many items each list of a rule.
const maxClusterItems = 25

var (
	clusterTiers   = map[string]Tier{"Admin": AdminTier, "Baseline": BaselineTier}
	clusterActions = []actionName{{"Accept", ActionAllow}, {"Deny", ActionDeny}, {"Pass", ActionPass}}
)

// fromCluster brings a decoded ClusterNetworkPolicy to the one form.
func fromCluster(d *clusterDocument) (Policy, *converter) {
	c := &converter{places: map[string]string{}}
	p := c.clusterPolicy(KindClusterNetworkPolicy, &d.Metadata)
	tier, ok := clusterTiers[d.Spec.Tier]
	if !ok {
		c.add("spec.tier", "tier %q: want Admin or Baseline%s", shorten(d.Spec.Tier), didYouMean(d.Spec.Tier, []string{"Admin", "Baseline"}))
		tier = AdminTier
	}
	p.Spec.Tier = tier
	if d.Spec.Priority == nil {
		c.add("spec.priority", "priority is missing; want 0 to 1000")
	} else {
		p.Spec.Priority = *d.Spec.Priority
	}
	c.subject(&p, d.Spec.Subject)
	c.items("spec.ingress", "ingress rules", len(d.Spec.Ingress), 0, maxClusterItems)
	c.items("spec.egress", "egress rules", len(d.Spec.Egress), 0, maxClusterItems)
	for i, r := range d.Spec.Ingress {
		at := fmt.Sprintf("spec.ingress[%d]", i)
		rule := Rule{Name: r.Name, Action: c.action(at+".action", r.Action, clusterActions)}
		c.items(at+".from", "peers", len(r.From), 1, maxClusterItems)
		for j, x := range r.From {
			c.peer(&rule, at, "from", j, clusterEgressPeer{Namespaces: x.Namespaces, Pods: x.Pods}, "namespaces or pods")
		}
		c.protocols(&rule, at, r.Protocols)
		p.Spec.Ingress = append(p.Spec.Ingress, rule)
	}
	for i, r := range d.Spec.Egress {
		at := fmt.Sprintf("spec.egress[%d]", i)
		rule := Rule{Name: r.Name, Action: c.action(at+".action", r.Action, clusterActions)}
		c.items(at+".to", "peers", len(r.To), 1, maxClusterItems)
		for j, x := range r.To {
			c.peer(&rule, at, "to", j, x, "namespaces, pods, nodes, networks or domainNames")
		}
		c.protocols(&rule, at, r.Protocols)
		p.Spec.Egress = append(p.Spec.Egress, rule)
	}
	return p, c
}

// clusterPolicy fills what all cluster-wide kinds have in common.
func (c *converter) clusterPolicy(kind string, meta *metav1.ObjectMeta) Policy {
	return Policy{
		Kind: kind, Namespace: meta.Namespace, Name: meta.Name, Labels: meta.Labels, Annotations: meta.Annotations,
		Spec:   Spec{OnDeny: c.onDenyAnnotation(meta.Annotations)},
		Shadow: c.mode("metadata.annotations["+ModeAnnotation+"]", meta.Annotations[ModeAnnotation]),
	}
}

// subject: "Exactly one field must be set."
func (c *converter) subject(p *Policy, s clusterSubject) {
	p.Spec.NamespaceSelector = &metav1.LabelSelector{}
	c.places["spec.podSelector"] = "spec.subject"
	c.places["spec.namespaceSelector"] = "spec.subject"
	switch {
	case s.Namespaces != nil && s.Pods != nil:
		c.add("spec.subject", "namespaces beside pods: a subject is one of them")
	case s.Namespaces != nil:
		p.Spec.NamespaceSelector = s.Namespaces
		c.places["spec.namespaceSelector"] = "spec.subject.namespaces"
	case s.Pods != nil:
		p.Spec.NamespaceSelector, p.Spec.PodSelector = &s.Pods.NamespaceSelector, s.Pods.PodSelector
		c.places["spec.namespaceSelector"] = "spec.subject.pods.namespaceSelector"
		c.places["spec.podSelector"] = "spec.subject.pods.podSelector"
	default:
		c.add("spec.subject", "the subject is empty; want namespaces or pods")
	}
}

func (c *converter) items(path, what string, n, low, high int) {
	switch {
	case n < low:
		c.add(path, "no %s; want at least one", what)
	case n > high:
		c.add(path, "%d %s; want at most %d", n, what, high)
	}
}

// put adds a peer to the rule and remembers where it stands.
func (c *converter) put(rule *Rule, at, list string, item string, x Peer, field, place string) {
	one := fmt.Sprintf("%s.%s[%d]", at, list, len(rule.Peers))
	rule.Peers = append(rule.Peers, x)
	c.places[one] = item
	if field != "" {
		c.places[one+"."+field] = item + "." + place
	}
}

// peer: "Exactly one of the fields must be set for a given peer".
func (c *converter) peer(rule *Rule, at, list string, j int, x clusterEgressPeer, want string) {
	item := fmt.Sprintf("%s.%s[%d]", at, list, j)
	set := 0
	for _, is := range []bool{x.Namespaces != nil, x.Pods != nil, x.Nodes != nil, x.Networks != nil, x.DomainNames != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		c.add(item, "%d kinds of peer in one; want exactly one of %s", set, want)
		return
	}
	switch {
	case x.Namespaces != nil:
		c.put(rule, at, list, item, Peer{NamespaceSelector: x.Namespaces}, "namespaceSelector", "namespaces")
	case x.Pods != nil:
		one := fmt.Sprintf("%s.%s[%d]", at, list, len(rule.Peers))
		c.put(rule, at, list, item, Peer{NamespaceSelector: &x.Pods.NamespaceSelector, PodSelector: &x.Pods.PodSelector}, "podSelector", "pods.podSelector")
		c.places[one+".namespaceSelector"] = item + ".pods.namespaceSelector"
	case x.Nodes != nil:
		c.put(rule, at, list, item, Peer{NodeSelector: x.Nodes}, "nodes", "nodes")
	case x.Networks != nil:
		c.items(item+".networks", "networks", len(x.Networks), 1, maxClusterItems)
		for k, cidr := range x.Networks {
			one := fmt.Sprintf("%s.%s[%d]", at, list, len(rule.Peers))
			c.put(rule, at, list, item, Peer{IPBlock: &networkingv1.IPBlock{CIDR: cidr}}, "ipBlock", fmt.Sprintf("networks[%d]", k))
			c.places[one+".ipBlock.cidr"] = fmt.Sprintf("%s.networks[%d]", item, k)
		}
	default:
		c.items(item+".domainNames", "domain names", len(x.DomainNames), 1, maxClusterItems)
		for k, name := range x.DomainNames {
			c.put(rule, at, list, item, Peer{DNSName: name}, "dnsName", fmt.Sprintf("domainNames[%d]", k))
		}
	}
}

func (c *converter) putPort(rule *Rule, at, item string, x Port, number, last string) {
	one := fmt.Sprintf("%s.ports[%d]", at, len(rule.Ports))
	rule.Ports = append(rule.Ports, x)
	c.places[one] = item
	c.places[one+".port"] = item + "." + number
	c.places[one+".endPort"] = item + "." + last
	c.places[one+".protocol"] = item
}

func (c *converter) protocols(rule *Rule, at string, in []clusterProtocol) {
	if in != nil {
		c.items(at+".protocols", "protocols", len(in), 1, maxClusterItems)
	}
	for i, x := range in {
		item := fmt.Sprintf("%s.protocols[%d]", at, i)
		set := 0
		for name, ports := range map[identity.Protocol]*clusterPorts{identity.TCP: x.TCP, identity.UDP: x.UDP, identity.SCTP: x.SCTP} {
			if ports != nil {
				set++
				c.numbered(rule, at, item, name, ports)
			}
		}
		if x.DestinationNamedPort != "" {
			set++
			c.namedPorts(rule, at, item, x.DestinationNamedPort, "destinationNamedPort")
		}
		if set != 1 {
			c.add(item, "%d kinds of protocol in one; want exactly one of tcp, udp, sctp or destinationNamedPort", set)
		}
	}
}

// namedPorts: a port's name is not about a protocol: it is that of each.
func (c *converter) namedPorts(rule *Rule, at, item, name, field string) {
	for _, protocol := range kubernetesProtocols {
		c.putPort(rule, at, item, PortName(protocol, name), field, field)
	}
}

// clusterProtocolField is how the API spells a protocol as a field.
var clusterProtocolField = map[identity.Protocol]string{identity.TCP: "tcp", identity.UDP: "udp", identity.SCTP: "sctp"}

// numbered: "You must specify either Port or Range." "Start port must be less than End port"
func (c *converter) numbered(rule *Rule, at, item string, protocol identity.Protocol, ports *clusterPorts) {
	field := clusterProtocolField[protocol]
	path := item + "." + field
	port := ports.DestinationPort
	switch {
	case port == nil:
		c.add(path, "%s: {} says nothing; want a destinationPort, for all of them range: {start: 1, end: 65535}", field)
	case (port.Number == nil) == (port.Range == nil):
		c.add(path+".destinationPort", "want one of number or range")
	case port.Number != nil:
		n := intstr.FromInt32(*port.Number)
		c.putPort(rule, at, item, Port{Protocol: protocol, Port: &n}, field+".destinationPort.number", field+".destinationPort.number")
	default:
		c.ranged(rule, at, item, protocol, *port.Range, field+".destinationPort.range")
	}
}

func (c *converter) ranged(rule *Rule, at, item string, protocol identity.Protocol, r clusterPortRange, path string) {
	start, end := intstr.FromInt32(r.Start), r.End
	c.putPort(rule, at, item, Port{Protocol: protocol, Port: &start, EndPort: &end}, path+".start", path+".end")
	if r.Start == r.End {
		c.add(item+"."+path+".end", "a range from %d to itself; want a number", r.Start)
	}
}
