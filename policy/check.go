package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// checker collects what is wrong in a policy's one form, with the path in that form.
type checker struct {
	kind string
	bad  []problem
}

func (c *checker) native() bool  { return c.kind == KindPolicy }
func (c *checker) cluster() bool { return isCluster(c.kind) }

// isCluster says whether policies of the kind belong to no namespace.
func isCluster(kind string) bool {
	return kind == KindClusterNetworkPolicy || kind == KindAdminNetworkPolicy || kind == KindBaselineAdminNetworkPolicy
}

func (c *checker) add(path, format string, args ...any) {
	c.bad = append(c.bad, problem{path, fmt.Sprintf(format, args...)})
}

// maxPriority bounds priorities of every kind.
const maxPriority = 1000

// check finds everything that an API server would refuse in the policy, and what has no meaning
// here. What passes compiles.
func check(p *Policy) []problem {
	c := &checker{kind: p.Kind}
	if !slices.Contains(kinds, p.Kind) {
		c.add("kind", "kind %q: want one of %s", p.Kind, list(kinds))
	}
	if p.Name == "" {
		c.add("metadata.name", "metadata.name is missing; every policy needs one")
	} else {
		c.name("metadata.name", p.Name, validation.IsDNS1123Subdomain(p.Name))
	}
	switch {
	case c.cluster() && p.Namespace != "":
		c.add("metadata.namespace", "metadata.namespace: a %s belongs to no namespace", p.Kind)
	case c.cluster():
	case p.Namespace == "":
		c.add("metadata.namespace", "metadata.namespace is empty")
	default:
		c.name("metadata.namespace", p.Namespace, validation.IsDNS1123Label(p.Namespace))
	}
	c.spec(p)
	for i, r := range p.Spec.Ingress {
		c.rule(fmt.Sprintf("spec.ingress[%d]", i), Ingress, r)
	}
	for i, r := range p.Spec.Egress {
		c.rule(fmt.Sprintf("spec.egress[%d]", i), Egress, r)
	}
	return c.bad
}

// spec checks what a policy says beside its rules.
func (c *checker) spec(p *Policy) {
	s := &p.Spec
	c.selector("spec.podSelector", &s.PodSelector)
	if s.NamespaceSelector != nil {
		c.selector("spec.namespaceSelector", s.NamespaceSelector)
	}
	switch {
	case c.cluster() == (s.Tier == NamespaceTier):
		c.add("spec.tier", "tier %s: not of a %s", s.Tier, p.Kind)
	case !c.cluster() && s.NamespaceSelector != nil:
		c.add("spec.namespaceSelector", "namespaceSelector: only cluster-wide kinds select namespaces")
	}
	if s.Priority < 0 || s.Priority > maxPriority {
		c.add("spec.priority", "priority %d: out of range %s", s.Priority, map[bool]string{true: "1-1000", false: "0-1000"}[c.native()])
	}
	c.word("spec.severity", "severity", s.Severity, severities)
	for i, t := range s.PolicyTypes {
		if t != networkingv1.PolicyTypeIngress && t != networkingv1.PolicyTypeEgress {
			c.add(fmt.Sprintf("spec.policyTypes[%d]", i), "policy type %q: want Ingress or Egress%s", t, didYouMean(string(t), []string{"Ingress", "Egress"}))
		}
	}
	if len(s.PolicyTypes) > 2 {
		c.add("spec.policyTypes", "%d policy types: want at most two, Ingress and Egress", len(s.PolicyTypes))
	}
}

// word checks one of a few words; none is one of them.
func (c *checker) word(path, what, word string, known []string) {
	if word != "" && !slices.Contains(known, word) {
		c.add(path, "%s %q: want %s%s", what, shorten(word), list(known), didYouMean(word, known))
	}
}

// brief is the first message of k8s.io/apimachinery's checks, without the regular expression.
func brief(messages []string) string {
	text, _, _ := strings.Cut(messages[0], " (e.g.")
	return text
}

func (c *checker) name(path, name string, messages []string) {
	if len(messages) > 0 {
		c.add(path, "%s %q: %s", path, name, brief(messages))
	}
}

// maxRuleName is the API's bound of a rule's name, in letters.
const maxRuleName = 100

func (c *checker) rule(path string, d Direction, r Rule) {
	if n := len([]rune(r.Name)); n > maxRuleName {
		c.add(path+".name", "a name of %d letters; want at most %d", n, maxRuleName)
	}
	if c.kind == KindNetworkPolicy && r.Action != ActionAllow || c.native() && r.Action == ActionPass {
		c.add(path+".action", "action %s: not of a %s", r.Action, c.kind)
	}
	c.word(path+".severity", "severity", r.Severity, severities)
	peers := "from"
	if d == Egress {
		peers = "to"
	}
	for i, p := range r.Peers {
		c.peer(fmt.Sprintf("%s.%s[%d]", path, peers, i), d, r, p)
	}
	for i, p := range r.Ports {
		c.port(fmt.Sprintf("%s.ports[%d]", path, i), p)
	}
}

func (c *checker) block(path string, b *networkingv1.IPBlock) {
	cidr, err := parseCIDR(b.CIDR)
	if b.CIDR == "" {
		c.add(path, "cidr is missing; want for example cidr: 10.0.0.0/8")
	} else if err != nil {
		c.add(path+".cidr", "%s", err)
	}
	for i, text := range b.Except {
		at := fmt.Sprintf("%s.except[%d]", path, i)
		except, wrong := parseCIDR(text)
		switch {
		case wrong != nil:
			c.add(at, "%s", wrong)
		case err != nil:
		case !cidr.Contains(except.Addr()) || except.Bits() <= cidr.Bits():
			// "Except values will be rejected if they are outside the cidr range"
			c.add(at, "except %s: must be a smaller block inside of %s", text, b.CIDR)
		}
	}
}

// parseCIDR reads a block. Bits behind the prefix are accepted and mean its network, as API servers
// did before they refused them in new objects.
func parseCIDR(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		why := strings.TrimPrefix(err.Error(), fmt.Sprintf("netip.ParsePrefix(%q): ", text))
		if i := strings.LastIndex(why, "): "); i >= 0 { // the address's own error is nested
			why = why[i+3:]
		}
		return p, fmt.Errorf("CIDR %q: %s; want for example 10.0.0.0/8 or fd00::/64", text, why)
	case p.Addr().Is4In6():
		return p, fmt.Errorf("CIDR %q: IPv4 in IPv6; write the IPv4 block", text)
	}
	return p.Masked(), nil
}

func (c *checker) port(path string, p Port) {
	low, high := int32(1), int32(65535)
	what := "port"
	if p.Protocol.IsICMP() {
		low, high, what = 0, 255, p.Protocol.String()+" type"
		if !c.native() {
			c.add(path+".protocol", "protocol %s: only a %s of %s has it", p.Protocol, KindPolicy, NativeVersion)
		}
	} else if p.Protocol != identity.AnyProtocol && !p.Protocol.HasPorts() {
		c.add(path+".protocol", "protocol %s: want TCP, UDP, SCTP, ICMP or ICMPv6", p.Protocol)
	}
	named := false
	switch {
	case p.Port == nil:
	case p.Port.Type == intstr.String && p.Protocol.IsICMP():
		c.add(path+".port", "%s %q: want a number from 0 to 255", what, p.Port.StrVal)
		named = true
	case p.Port.Type == intstr.String:
		named = true
		if m := validation.IsValidPortName(p.Port.StrVal); len(m) > 0 {
			c.add(path+".port", "port name %q: %s", p.Port.StrVal, brief(m))
		}
	case p.Port.IntVal < low || p.Port.IntVal > high:
		c.add(path+".port", "%s %d: out of range %d-%d", what, p.Port.IntVal, low, high)
	}
	if p.EndPort == nil {
		return
	}
	// "This field cannot be defined if the port field is not defined or if the port field is
	// defined as a named (string) port. The endPort must be equal or greater than port."
	switch {
	case p.Port == nil:
		c.add(path+".endPort", "endPort %d without port: a range needs its first port", *p.EndPort)
	case named:
		c.add(path+".endPort", "endPort %d beside a port's name: a range needs a number in port", *p.EndPort)
	case *p.EndPort < low || *p.EndPort > high:
		c.add(path+".endPort", "endPort %d: out of range %d-%d", *p.EndPort, low, high)
	case *p.EndPort < p.Port.IntVal:
		c.add(path+".endPort", "endPort %d: below port %d", *p.EndPort, p.Port.IntVal)
	}
}

// selector holds label selectors to what the API server accepts
// (k8s.io/apimachinery/pkg/apis/meta/v1/validation).
func (c *checker) selector(path string, s *metav1.LabelSelector) {
	for _, key := range sortedKeys(s.MatchLabels) {
		at := fmt.Sprintf("%s.matchLabels[%s]", path, key)
		if m := validation.IsQualifiedName(key); len(m) > 0 {
			c.add(at, "label %q: %s", key, brief(m))
		}
		if m := validation.IsValidLabelValue(s.MatchLabels[key]); len(m) > 0 {
			c.add(at, "value %q of label %q: %s", s.MatchLabels[key], key, brief(m))
		}
	}
	operators := []string{"In", "NotIn", "Exists", "DoesNotExist"}
	for i, e := range s.MatchExpressions {
		at := fmt.Sprintf("%s.matchExpressions[%d]", path, i)
		if m := validation.IsQualifiedName(e.Key); len(m) > 0 {
			c.add(at+".key", "label %q: %s", e.Key, brief(m))
		}
		switch op := string(e.Operator); {
		case !slices.Contains(operators, op):
			c.add(at+".operator", "operator %q: want one of %s%s", op, list(operators), didYouMean(op, operators))
		case (op == "In" || op == "NotIn") && len(e.Values) == 0:
			c.add(at+".values", "operator %s needs at least one value", op)
		case (op == "Exists" || op == "DoesNotExist") && len(e.Values) > 0:
			c.add(at+".values", "operator %s takes no values", op)
		}
		for j, v := range e.Values {
			if m := validation.IsValidLabelValue(v); len(m) > 0 {
				c.add(fmt.Sprintf("%s.values[%d]", at, j), "value %q of label %q: %s", v, e.Key, brief(m))
			}
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
