package policy

import (
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// The kinds that are read.
const (
	KindPolicy        = "Policy"        // bulkhead.dev/v1alpha1
	KindNetworkPolicy = "NetworkPolicy" // networking.k8s.io/v1

	NativeVersion     = "bulkhead.dev/v1alpha1"
	KubernetesVersion = "networking.k8s.io/v1"
)

// Policy is one document of either kind, in one form. It says what the workloads that it selects
// may do; what no policy that selects a workload allows, in a direction that one of them isolates,
// is denied. It is not changed after it was put in a [Set].
type Policy struct {
	Kind        string // KindPolicy or KindNetworkPolicy
	Namespace   string
	Name        string
	Labels      map[string]string
	Annotations map[string]string
	Spec        Spec

	Comment []string // lines that Marshal writes above the document, without "# "
	Source  string   // where it was read: "shop.yaml:14"; empty: made by a program
	Text    string   // the document as it was read
}

// Spec has the shape of NetworkPolicySpec, with the peers and ports of both kinds.
type Spec struct {
	PodSelector metav1.LabelSelector // empty: every workload of the policy's namespace
	PolicyTypes []networkingv1.PolicyType
	Ingress     []Rule
	Egress      []Rule
}

// Rule allows what comes from (ingress) or goes to (egress) one of the peers on one of the ports.
type Rule struct {
	Peers   []Peer   // from or to; empty: everybody
	Ports   []Port   // empty: every protocol and port, ICMP included
	Comment []string // lines that Marshal writes above the rule, without "# "
}

// Peer is one kind of other end. Either selectors, or a block, or a network.
type Peer struct {
	PodSelector       *metav1.LabelSelector
	NamespaceSelector *metav1.LabelSelector
	IPBlock           *networkingv1.IPBlock
	Network           string // one of the Network constants, or a name from the configuration; native kind only
}

// The networks that are there without being configured.
const (
	NetworkWorld    = "world"                  // see [identity.View.World]
	NetworkCluster  = "cluster"                // the pod blocks, and every known workload outside of them
	NetworkNode     = "node"                   // the node that the workload runs on
	NetworkDNS      = "dns"                    // the workload's resolvers
	NetworkMetadata = identity.MetadataNetwork // the cloud's metadata servers
)

var builtInNetworks = []string{NetworkWorld, NetworkCluster, NetworkNode, NetworkDNS, NetworkMetadata}

// Port is a protocol with a port, a range of ports, a port's name, or none of them: all ports of
// the protocol. For ICMP and ICMPv6 (native kind only) the number is the message type.
type Port struct {
	Protocol identity.Protocol // zero: TCP, as in NetworkPolicy
	Port     *intstr.IntOrString
	EndPort  *int32
}

// PortNumber makes a Port for one number.
func PortNumber(protocol identity.Protocol, number uint16) Port {
	n := intstr.FromInt32(int32(number))
	return Port{Protocol: protocol, Port: &n}
}

// PortName makes a Port for a container port's name.
func PortName(protocol identity.Protocol, name string) Port {
	n := intstr.FromString(name)
	return Port{Protocol: protocol, Port: &n}
}

// Key is what tells policies apart.
type Key struct{ Kind, Namespace, Name string }

// String gives "NetworkPolicy shop/cart".
func (k Key) String() string { return k.Kind + " " + k.Namespace + "/" + k.Name }

// Key of the policy.
func (p *Policy) Key() Key { return Key{p.Kind, p.Namespace, p.Name} }

// String gives "shop/cart".
func (p *Policy) String() string { return p.Namespace + "/" + p.Name }

// Isolates says whether the policy isolates what it selects in that direction.
//
// "If this field is not specified, it will default based on the existence of ingress or egress
// rules; policies that contain an egress section are assumed to affect egress, and all policies
// (whether or not they contain an ingress section) are assumed to affect ingress." An egress
// section without a rule in it counts as none (SetDefaults_NetworkPolicy).
func (p *Policy) Isolates(d Direction) bool {
	if len(p.Spec.PolicyTypes) == 0 {
		return d == Ingress || len(p.Spec.Egress) > 0
	}
	for _, t := range p.Spec.PolicyTypes {
		if d == Ingress && t == networkingv1.PolicyTypeIngress || d == Egress && t == networkingv1.PolicyTypeEgress {
			return true
		}
	}
	return false
}

// Rules of one direction.
func (p *Policy) Rules(d Direction) []Rule {
	if d == Ingress {
		return p.Spec.Ingress
	}
	return p.Spec.Egress
}

// ruleName is how people are told of a rule: "shop/cart ingress[0]".
func (p *Policy) ruleName(d Direction, i int) string {
	return fmt.Sprintf("%s/%s %s[%d]", p.Namespace, p.Name, d, i)
}

// nativeDocument is the YAML of bulkhead.dev/v1alpha1. Its field names are NetworkPolicy's.
type nativeDocument struct {
	APIVersion string     `json:"apiVersion"`
	Kind       string     `json:"kind"`
	Metadata   nativeMeta `json:"metadata"`
	Spec       nativeSpec `json:"spec"`
}

type nativeMeta struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type nativeSpec struct {
	PodSelector metav1.LabelSelector      `json:"podSelector"`
	PolicyTypes []networkingv1.PolicyType `json:"policyTypes,omitempty"`
	Ingress     []nativeIngress           `json:"ingress,omitempty"`
	Egress      []nativeEgress            `json:"egress,omitempty"`
}

type nativeIngress struct {
	From  []nativePeer `json:"from,omitempty"`
	Ports []nativePort `json:"ports,omitempty"`
}

type nativeEgress struct {
	To    []nativePeer `json:"to,omitempty"`
	Ports []nativePort `json:"ports,omitempty"`
}

type nativePeer struct {
	PodSelector       *metav1.LabelSelector `json:"podSelector,omitempty"`
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	IPBlock           *networkingv1.IPBlock `json:"ipBlock,omitempty"`
	Network           string                `json:"network,omitempty"`
}

type nativePort struct {
	Protocol *string             `json:"protocol,omitempty"`
	Port     *intstr.IntOrString `json:"port,omitempty"`
	EndPort  *int32              `json:"endPort,omitempty"`
}

// kubernetesDocument is networking.k8s.io/v1 NetworkPolicy as files carry it: "status" was part of
// it in Kubernetes 1.24 to 1.27 and is still found in exports. It is read over.
type kubernetesDocument struct {
	networkingv1.NetworkPolicy `json:",inline"`
	Status                     map[string]any `json:"status,omitempty"`
}
