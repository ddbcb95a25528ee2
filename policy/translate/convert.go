package translate

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Loss is one thing that a policy says and the other kind cannot.
type Loss struct {
	Place   string `json:"place,omitempty"`  // "shop.yaml:14:9"; empty: the policy was read from no file
	Policy  string `json:"policy,omitempty"` // "Policy shop/cart"
	Path    string `json:"field"`            // "spec.egress[0].to[1].dnsName"
	Why     string `json:"why"`
	Nearest string `json:"nearest,omitempty"` // what was written instead, or what to do
}

// String is the loss on one line.
func (l Loss) String() string {
	at := l.Place
	if at == "" {
		at = l.Policy
	}
	text := fmt.Sprintf("%s: %s: %s", at, l.Path, l.Why)
	if l.Nearest != "" {
		text += "; " + l.Nearest
	}
	return text
}

// Result is one policy in another kind: none, one, or one for each namespace.
type Result struct {
	Policies []policy.Policy
	Losses   []Loss
}

// Targets are the kinds that [Convert] writes, by the names that people give them.
var Targets = map[string]string{
	"native":               policy.KindPolicy,
	"networkpolicy":        policy.KindNetworkPolicy,
	"clusternetworkpolicy": policy.KindClusterNetworkPolicy,
}

// Convert writes a policy as another kind, one of the values of [Targets]. Of the same kind it comes
// back as it is.
func Convert(p *policy.Policy, kind string) Result {
	c := &conversion{of: p, comments: readComments(p.Text)}
	switch {
	case p.Kind == kind:
		c.out = append(c.out, c.withComments(*p))
	case kind == policy.KindClusterNetworkPolicy && clusterWide(p):
		c.out = append(c.out, c.withComments(c.renamed(kind, "")))
	case kind == policy.KindClusterNetworkPolicy:
		c.cluster()
	case clusterWide(p):
		c.namespaces(kind)
	case kind == policy.KindPolicy:
		c.native()
	default:
		c.networkPolicy()
	}
	return Result{c.out, c.losses}
}

func clusterWide(p *policy.Policy) bool { return p.Namespace == "" }

// conversion is one call of Convert.
type conversion struct {
	of       *policy.Policy
	comments comments
	out      []policy.Policy
	losses   []Loss
	places   *policy.Positions
}

func (c *conversion) lose(path, why, nearest string) {
	if c.places == nil {
		c.places = c.of.Positions()
	}
	c.losses = append(c.losses, Loss{Place: c.places.At(path), Policy: c.of.Key().String(), Path: path, Why: why, Nearest: nearest})
}

// renamed is the policy with another kind and namespace, without what it was read from.
func (c *conversion) renamed(kind, namespace string) policy.Policy {
	out := *c.of
	out.Kind, out.Namespace = kind, namespace
	out.Source, out.Text, out.Warnings = "", "", nil
	out.Spec.Ingress, out.Spec.Egress = slices.Clone(out.Spec.Ingress), slices.Clone(out.Spec.Egress)
	return out
}

// explicit writes policyTypes down, so that rules that go do not change what is isolated.
func explicit(p *policy.Policy) []networkingv1.PolicyType {
	var out []networkingv1.PolicyType
	if p.Isolates(policy.Ingress) {
		out = append(out, networkingv1.PolicyTypeIngress)
	}
	if p.Isolates(policy.Egress) {
		out = append(out, networkingv1.PolicyTypeEgress)
	}
	return out
}

// eachRule lists the rules of both directions with their paths.
func eachRule(p *policy.Policy, see func(d policy.Direction, i int, path string, r policy.Rule)) {
	for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
		for i, r := range p.Rules(d) {
			see(d, i, fmt.Sprintf("spec.%s[%d]", d, i), r)
		}
	}
}

// peerPath is where a peer stands: "spec.ingress[0].from[1]".
func peerPath(rule string, d policy.Direction, i int) string {
	if d == policy.Ingress {
		return fmt.Sprintf("%s.from[%d]", rule, i)
	}
	return fmt.Sprintf("%s.to[%d]", rule, i)
}

// comments are what people wrote above a document and its rules.
type comments struct {
	head  []string
	rules map[string][]string // by path
}

// readComments takes comments from a document's text; what it cannot read has none.
func readComments(text string) comments {
	out := comments{rules: map[string][]string{}}
	var doc yaml.Node
	if yaml.Unmarshal([]byte(text), &doc) != nil || len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return out
	}
	root := doc.Content[0]
	out.head = append(lines(doc.HeadComment), lines(root.HeadComment)...)
	if len(root.Content) > 0 {
		out.head = append(out.head, lines(root.Content[0].HeadComment)...)
	}
	spec := child(root, "spec")
	for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
		list := child(spec, d.String())
		if list == nil || list.Kind != yaml.SequenceNode {
			continue
		}
		for i, n := range list.Content {
			own := append(lines(n.HeadComment), lines(n.LineComment)...)
			if n.Kind == yaml.MappingNode && len(n.Content) > 0 {
				own = append(own, lines(n.Content[0].HeadComment)...)
			}
			out.rules[fmt.Sprintf("spec.%s[%d]", d, i)] = own
		}
	}
	return out
}

func child(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func lines(comment string) []string {
	if comment == "" {
		return nil
	}
	var out []string
	for _, l := range strings.Split(comment, "\n") {
		if l = strings.TrimPrefix(strings.TrimPrefix(l, "#"), " "); strings.TrimSpace(l) != "" && !strings.HasPrefix(l, "yaml-language-server:") {
			out = append(out, l)
		}
	}
	return out
}

// withComments puts the document's comment above it, and the rules' above those that have none yet
// and stand where they stood.
func (c *conversion) withComments(p policy.Policy) policy.Policy {
	p.Comment = append(slices.Clone(c.comments.head), p.Comment...)
	eachRule(&p, func(d policy.Direction, i int, path string, r policy.Rule) {
		if len(p.Rules(d)) == len(c.of.Rules(d)) && len(r.Comment) == 0 {
			p.Rules(d)[i].Comment = c.comments.rules[path]
		}
	})
	return p
}
