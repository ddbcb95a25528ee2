package policy

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// adminDocument is AdminNetworkPolicy and BaselineAdminNetworkPolicy of
// policy.networking.k8s.io/v1alpha1, which ClusterNetworkPolicy has replaced.
type adminDocument struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   metav1.ObjectMeta `json:"metadata"`
	Spec       adminSpec         `json:"spec"`
	Status     map[string]any    `json:"status,omitempty"` // read over
}

type adminSpec struct {
	Priority *int32         `json:"priority"` // AdminNetworkPolicy only
	Subject  clusterSubject `json:"subject"`
	Ingress  []adminIngress `json:"ingress,omitempty"`
	Egress   []adminEgress  `json:"egress,omitempty"`
}

type adminIngress struct {
	Name   string               `json:"name,omitempty"`
	Action string               `json:"action"`
	From   []clusterIngressPeer `json:"from"`
	Ports  []adminPort          `json:"ports,omitempty"`
}

type adminEgress struct {
	Name   string              `json:"name,omitempty"`
	Action string              `json:"action"`
	To     []clusterEgressPeer `json:"to"`
	Ports  []adminPort         `json:"ports,omitempty"`
}

type adminPort struct {
	PortNumber *adminPortNumber `json:"portNumber,omitempty"`
	NamedPort  string           `json:"namedPort,omitempty"`
	PortRange  *adminPortRange  `json:"portRange,omitempty"`
}

type adminPortNumber struct {
	Protocol *string `json:"protocol"`
	Port     int32   `json:"port"`
}

type adminPortRange struct {
	Protocol *string `json:"protocol,omitempty"`
	Start    int32   `json:"start"`
	End      int32   `json:"end"`
}

// Bounds of the older API.
const maxAdminItems = 100

// baselineName is the only one that the API allows: there is one such object in a cluster.
const baselineName = "default"

var (
	adminActions    = []actionName{{"Allow", ActionAllow}, {"Deny", ActionDeny}, {"Pass", ActionPass}}
	baselineActions = []actionName{{"Allow", ActionAllow}, {"Deny", ActionDeny}}
)

// fromAdmin brings one of the two older kinds to the one form, which is ClusterNetworkPolicy's.
func fromAdmin(d *adminDocument) (Policy, *converter) {
	c := &converter{places: map[string]string{}}
	p := c.clusterPolicy(d.Kind, &d.Metadata)
	p.Spec.Tier = AdminTier
	actions := adminActions
	if d.Kind == KindBaselineAdminNetworkPolicy {
		p.Spec.Tier, p.Spec.Priority, actions = BaselineTier, maxPriority, baselineActions
		if d.Metadata.Name != baselineName && d.Metadata.Name != "" {
			c.add("metadata.name", "name %q: there is one %s, and its name is %s", shorten(d.Metadata.Name), d.Kind, baselineName)
		}
		if d.Spec.Priority != nil {
			c.add("spec.priority", "a %s has no priority", d.Kind)
		}
	} else if d.Spec.Priority == nil {
		c.add("spec.priority", "priority is missing; want 0 to 1000")
	} else {
		p.Spec.Priority = *d.Spec.Priority
	}
	p.Warnings = append(p.Warnings, fmt.Sprintf("%s is the older kind; it is read as a %s of tier %s with priority %d; bulkhead policy convert --to clusternetworkpolicy writes that",
		d.Kind, KindClusterNetworkPolicy, map[Tier]string{AdminTier: "Admin", BaselineTier: "Baseline"}[p.Spec.Tier], p.Spec.Priority))
	c.subject(&p, d.Spec.Subject)
	c.items("spec.ingress", "ingress rules", len(d.Spec.Ingress), 0, maxAdminItems)
	c.items("spec.egress", "egress rules", len(d.Spec.Egress), 0, maxAdminItems)
	for i, r := range d.Spec.Ingress {
		at := fmt.Sprintf("spec.ingress[%d]", i)
		rule := Rule{Name: r.Name, Action: c.action(at+".action", r.Action, actions)}
		c.items(at+".from", "peers", len(r.From), 1, maxAdminItems)
		for j, x := range r.From {
			c.peer(&rule, at, "from", j, clusterEgressPeer{Namespaces: x.Namespaces, Pods: x.Pods}, "namespaces or pods")
		}
		c.adminPorts(&rule, at, r.Ports)
		p.Spec.Ingress = append(p.Spec.Ingress, rule)
	}
	for i, r := range d.Spec.Egress {
		at := fmt.Sprintf("spec.egress[%d]", i)
		rule := Rule{Name: r.Name, Action: c.action(at+".action", r.Action, actions)}
		c.items(at+".to", "peers", len(r.To), 1, maxAdminItems)
		for j, x := range r.To {
			c.peer(&rule, at, "to", j, x, "namespaces, pods, nodes, networks or domainNames")
		}
		c.adminPorts(&rule, at, r.Ports)
		p.Spec.Egress = append(p.Spec.Egress, rule)
	}
	return p, c
}

func (c *converter) adminPorts(rule *Rule, at string, in []adminPort) {
	c.items(at+".ports", "ports", len(in), 0, maxAdminItems)
	for i, x := range in {
		item := fmt.Sprintf("%s.ports[%d]", at, i)
		set := 0
		if n := x.PortNumber; n != nil {
			set++
			number := intstr.FromInt32(n.Port)
			c.putPort(rule, at, item, Port{Protocol: c.adminProtocol(item+".portNumber", n.Protocol), Port: &number}, "portNumber.port", "portNumber.port")
		}
		if r := x.PortRange; r != nil {
			set++
			c.ranged(rule, at, item, c.adminProtocol(item+".portRange", r.Protocol), clusterPortRange{r.Start, r.End}, "portRange")
		}
		if x.NamedPort != "" {
			set++
			c.namedPorts(rule, at, item, x.NamedPort, "namedPort")
		}
		if set != 1 {
			c.add(item, "%d kinds of port in one; want exactly one of portNumber, portRange or namedPort", set)
		}
	}
}

func (c *converter) adminProtocol(path string, name *string) identity.Protocol {
	return c.protocol(path+".protocol", name, kubernetesProtocols)
}
