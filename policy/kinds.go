package policy

import (
	"fmt"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// The kinds that are read.
const (
	KindPolicy        = "Policy"        // bulkhead.dev/v1alpha1
	KindNetworkPolicy = "NetworkPolicy" // networking.k8s.io/v1

	KindClusterNetworkPolicy       = "ClusterNetworkPolicy"       // policy.networking.k8s.io/v1alpha2 and v1beta1
	KindAdminNetworkPolicy         = "AdminNetworkPolicy"         // policy.networking.k8s.io/v1alpha1
	KindBaselineAdminNetworkPolicy = "BaselineAdminNetworkPolicy" // policy.networking.k8s.io/v1alpha1

	NativeVersion     = "bulkhead.dev/v1alpha1"
	KubernetesVersion = "networking.k8s.io/v1"
	ClusterGroup      = "policy.networking.k8s.io"
)

// Tier says when a policy is asked: the admin tier before the namespaced policies, the baseline tier
// only for workloads and directions that no namespaced policy isolates. The zero value is the tier
// of namespaced policies.
type Tier uint8

const (
	NamespaceTier Tier = iota
	AdminTier
	BaselineTier
)

func (t Tier) String() string { return [...]string{"namespace", "admin", "baseline"}[t] }

// Action is what a rule does with what it matches. The zero value allows.
type Action uint8

const (
	ActionAllow Action = iota // Accept in ClusterNetworkPolicy
	ActionDeny
	ActionPass // cluster-wide kinds: skip the rest of the tier
)

func (a Action) String() string { return [...]string{"allow", "deny", "pass"}[a] }

// Policy is one document of any kind, in one form. It says what the workloads that it selects
// may do; what no policy that selects a workload allows, in a direction that one of them isolates,
// is denied. It is not changed after it was put in a [Set].
type Policy struct {
	Kind        string // one of the Kind constants
	Namespace   string // empty for cluster-wide kinds
	Name        string
	Labels      map[string]string
	Annotations map[string]string
	Spec        Spec

	Shadow   bool     // judged beside what is in force, never enforced: see Set.Shadows
	Warnings []string // what reading it had to settle: a kind that was converted, a CIDR with host bits

	Comment []string // lines that Marshal writes above the document, without "# "
	Source  string   // where it was read: "shop.yaml:14"; empty: made by a program
	Text    string   // the document as it was read
}

// Spec has the shape of NetworkPolicySpec, with the peers and ports of both kinds.
type Spec struct {
	PodSelector       metav1.LabelSelector  // empty: every workload of the policy's namespaces
	NamespaceSelector *metav1.LabelSelector // cluster-wide kinds: the namespaces it is about; empty: all
	Tier              Tier
	// Priority orders policies of one tier: the lower number is asked first. Admin and baseline:
	// 0 to 1000. Native kind: 1 to 1000; 0 stands for 1000, which is also every NetworkPolicy's; at
	// the same priority a denying rule wins over an allowing one.
	Priority    int32
	PolicyTypes []networkingv1.PolicyType
	Ingress     []Rule
	Egress      []Rule

	Severity string // native kind: of alerts about what the policy denies: low, medium, high, critical; empty: the judge's
	Reason   string // native kind: why the policy is there, told in explanations and alerts
	OnDeny   OnDeny // how denials are told; in other kinds the annotation OnDenyAnnotation
}

// Rule allows, denies or passes on what comes from (ingress) or goes to (egress) one of the peers on
// one of the ports.
type Rule struct {
	Name    string // for people; empty: by its index
	Action  Action
	Peers   []Peer    // from or to; empty: everybody
	Ports   []Port    // empty: every protocol and port, ICMP included
	Expires time.Time // native kind: the rule means nothing from then on; zero: never

	Severity string // native kind: as of the policy, for this rule
	Reason   string // native kind: as of the policy, for this rule

	Comment []string // lines that Marshal writes above the rule, without "# "
}

// Peer is one kind of other end: selectors, or one of the rest.
type Peer struct {
	PodSelector       *metav1.LabelSelector
	NamespaceSelector *metav1.LabelSelector
	IPBlock           *networkingv1.IPBlock
	Network           string                // one of the Network constants, or a name from the configuration; native kind only
	Service           *ServiceRef           // the workloads behind a Service; native kind only
	DNSName           string                // "api.example.com" or "*.example.com"; egress of the native and cluster-wide kinds
	NodeSelector      *metav1.LabelSelector // nodes by their labels; egress of cluster-wide kinds
}

// ServiceRef names a Kubernetes Service.
type ServiceRef struct {
	Name      string `json:"name"`                // of the Service
	Namespace string `json:"namespace,omitempty"` // empty: the policy's own
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

// String gives "NetworkPolicy shop/cart", "ClusterNetworkPolicy deny-world".
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Kind + " " + k.Name
	}
	return k.Kind + " " + k.Namespace + "/" + k.Name
}

// Key of the policy.
func (p *Policy) Key() Key { return Key{p.Kind, p.Namespace, p.Name} }

// String gives "shop/cart", or the name alone of a cluster-wide one.
func (p *Policy) String() string {
	if p.Namespace == "" {
		return p.Name
	}
	return p.Namespace + "/" + p.Name
}

// clusterWide says that the policy belongs to no namespace.
func (p *Policy) clusterWide() bool { return p.Spec.Tier != NamespaceTier }

// Isolates says whether the policy isolates what it selects in that direction.
//
// "If this field is not specified, it will default based on the existence of ingress or egress
// rules; policies that contain an egress section are assumed to affect egress, and all policies
// (whether or not they contain an ingress section) are assumed to affect ingress." An egress
// section without a rule in it counts as none (SetDefaults_NetworkPolicy).
//
// Cluster-wide policies isolate nothing. Nor does a native policy without policyTypes that has rules
// and only denying ones: who writes down what shall not be does not mean that nothing else shall.
func (p *Policy) Isolates(d Direction) bool {
	switch {
	case p.clusterWide():
		return false
	case len(p.Spec.PolicyTypes) == 0 && p.onlyDenies():
		return false
	case len(p.Spec.PolicyTypes) == 0:
		return d == Ingress || len(p.Spec.Egress) > 0
	}
	for _, t := range p.Spec.PolicyTypes {
		if d == Ingress && t == networkingv1.PolicyTypeIngress || d == Egress && t == networkingv1.PolicyTypeEgress {
			return true
		}
	}
	return false
}

// onlyDenies says that there are rules, and all of them deny.
func (p *Policy) onlyDenies() bool {
	for _, r := range slices.Concat(p.Spec.Ingress, p.Spec.Egress) {
		if r.Action != ActionDeny {
			return false
		}
	}
	return len(p.Spec.Ingress)+len(p.Spec.Egress) > 0
}

// Denies says whether the policy can deny anything in that direction: it isolates, or has a denying
// rule.
func (p *Policy) Denies(d Direction) bool {
	return p.Isolates(d) || slices.ContainsFunc(p.Rules(d), func(r Rule) bool { return r.Action == ActionDeny })
}

// speaks says whether the policy has a say in that direction at all: it isolates, or has rules there
// that hold without isolating.
func (p *Policy) speaks(d Direction) bool {
	if p.Isolates(d) {
		return true
	}
	return len(p.Rules(d)) > 0 && (p.clusterWide() || len(p.Spec.PolicyTypes) == 0 && p.onlyDenies())
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
	return fmt.Sprintf("%s %s[%d]", p, d, i)
}

// kubernetesDocument is networking.k8s.io/v1 NetworkPolicy as files carry it: "status" was part of
// it in Kubernetes 1.24 to 1.27 and is still found in exports. It is read over.
type kubernetesDocument struct {
	networkingv1.NetworkPolicy `json:",inline"`
	Status                     map[string]any `json:"status,omitempty"`
}
