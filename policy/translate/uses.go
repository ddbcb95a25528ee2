package translate

import (
	"fmt"
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Field is something in a policy that engines are known to differ in.
type Field string

const (
	FieldNetworkPolicy    Field = "networkPolicy"           // the kind as such
	FieldNative           Field = "native"                  // bulkhead.dev's Policy
	FieldClusterPolicy    Field = "clusterNetworkPolicy"    // v1alpha2 and later
	FieldAdminPolicy      Field = "adminNetworkPolicy"      // AdminNetworkPolicy, BaselineAdminNetworkPolicy
	FieldPodSelector      Field = "podSelector"             // of the subject
	FieldEndPort          Field = "endPort"                 // a range of ports
	FieldNamedPort        Field = "namedPort"               // a port by name
	FieldManyPorts        Field = "manyPorts"               // more than 24 ports in one rule
	FieldSCTP             Field = "sctp"                    //
	FieldIPBlock          Field = "ipBlock"                 //
	FieldExcept           Field = "except"                  // of an ipBlock
	FieldIPv6             Field = "ipv6"                    // an IPv6 block
	FieldDualStack        Field = "dualStack"               // blocks of both families in one policy
	FieldNegativeSelector Field = "negativeSelector"        // NotIn, DoesNotExist
	FieldCombinedSelector Field = "namespaceAndPodSelector" // both in one peer
	FieldEgress           Field = "egress"                  //
	FieldPriorityAbove99  Field = "priorityAbove99"         // of cluster-wide kinds
	FieldDomainNames      Field = "clusterNetworkPolicy.domainNames"
	FieldNodes            Field = "clusterNetworkPolicy.nodes"
)

// Fields lists all of them, in the order of the documentation.
var Fields = []Field{
	FieldNetworkPolicy, FieldNative, FieldClusterPolicy, FieldAdminPolicy, FieldPodSelector, FieldEndPort, FieldNamedPort, FieldManyPorts,
	FieldSCTP, FieldIPBlock, FieldExcept, FieldIPv6, FieldDualStack, FieldNegativeSelector, FieldCombinedSelector, FieldEgress,
	FieldPriorityAbove99, FieldDomainNames, FieldNodes,
}

// basic fields are what makes an engine one: that nothing is said of them is no news.
var basic = map[Field]bool{FieldNetworkPolicy: true, FieldPodSelector: true, FieldEgress: true}

// Use is one place where a policy uses a field.
type Use struct {
	Field  Field  `json:"field"`
	Place  string `json:"place,omitempty"` // "shop.yaml:14:9"
	Policy string `json:"policy"`
	Path   string `json:"path"`
}

// manyPorts is the bound of FieldManyPorts.
const manyPorts = 24

// Uses lists the fields that a policy uses, each once, at its first place.
func Uses(p *policy.Policy) []Use {
	u := &uses{of: p, seen: map[Field]bool{}, places: p.Positions()}
	switch p.Kind {
	case policy.KindPolicy:
		u.add(FieldNative, "kind")
	case policy.KindNetworkPolicy:
		u.add(FieldNetworkPolicy, "kind")
	case policy.KindClusterNetworkPolicy:
		u.add(FieldClusterPolicy, "kind")
	default:
		u.add(FieldAdminPolicy, "kind")
	}
	if clusterWide(p) && p.Spec.Priority > 99 {
		u.add(FieldPriorityAbove99, "spec.priority")
	}
	u.add(FieldPodSelector, "spec.podSelector")
	u.selector("spec.podSelector", &p.Spec.PodSelector)
	u.selector("spec.namespaceSelector", p.Spec.NamespaceSelector)
	if p.Isolates(policy.Egress) || len(p.Spec.Egress) > 0 {
		u.add(FieldEgress, "spec.egress")
	}
	families := map[bool]bool{}
	eachRule(p, func(d policy.Direction, _ int, path string, r policy.Rule) {
		for i, x := range r.Peers {
			u.peer(peerPath(path, d, i), x, families)
		}
		for i, x := range r.Ports {
			u.port(fmt.Sprintf("%s.ports[%d]", path, i), x)
		}
		if len(r.Ports) > manyPorts {
			u.add(FieldManyPorts, path+".ports")
		}
	})
	return u.list
}

type uses struct {
	of     *policy.Policy
	seen   map[Field]bool
	places *policy.Positions
	list   []Use
}

func (u *uses) add(f Field, path string) {
	if !u.seen[f] {
		u.seen[f] = true
		u.list = append(u.list, Use{Field: f, Place: u.places.At(path), Policy: u.of.Key().String(), Path: path})
	}
}

func (u *uses) selector(path string, s *metav1.LabelSelector) {
	if s == nil {
		return
	}
	for i, e := range s.MatchExpressions {
		if e.Operator == metav1.LabelSelectorOpNotIn || e.Operator == metav1.LabelSelectorOpDoesNotExist {
			u.add(FieldNegativeSelector, fmt.Sprintf("%s.matchExpressions[%d]", path, i))
		}
	}
}

func (u *uses) peer(path string, x policy.Peer, families map[bool]bool) {
	u.selector(path+".podSelector", x.PodSelector)
	u.selector(path+".namespaceSelector", x.NamespaceSelector)
	switch {
	case x.IPBlock != nil:
		u.add(FieldIPBlock, path+".ipBlock")
		if len(x.IPBlock.Except) > 0 {
			u.add(FieldExcept, path+".ipBlock.except")
		}
		if p, err := netip.ParsePrefix(x.IPBlock.CIDR); err == nil {
			families[p.Addr().Is6()] = true
			if p.Addr().Is6() {
				u.add(FieldIPv6, path+".ipBlock.cidr")
			}
			if len(families) == 2 {
				u.add(FieldDualStack, path+".ipBlock.cidr")
			}
		}
	case x.DNSName != "":
		u.add(FieldDomainNames, path+".dnsName")
	case x.NodeSelector != nil:
		u.add(FieldNodes, path+".nodes")
	case x.PodSelector != nil && x.NamespaceSelector != nil && !clusterWide(u.of):
		u.add(FieldCombinedSelector, path)
	}
}

func (u *uses) port(path string, x policy.Port) {
	switch {
	case named(x):
		u.add(FieldNamedPort, path+".port")
	case x.EndPort != nil:
		u.add(FieldEndPort, path+".endPort")
	}
	if x.Protocol == identity.SCTP {
		u.add(FieldSCTP, path+".protocol")
	}
}
