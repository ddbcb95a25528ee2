package policy

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// Marshal writes a policy as a YAML document of its kind, always in the same way, comments above
// the document and its rules. Reading it again gives the same policy (without comments). Errors:
// what the kind cannot say, such as a network in a NetworkPolicy; the older cluster-wide kinds are not
// written, ClusterNetworkPolicy is.
func Marshal(p Policy) ([]byte, error) {
	if bad := append(check(&p), unwritable(&p)...); len(bad) > 0 {
		return nil, fmt.Errorf("%s: %s: %s", p.Key(), bad[0].path, bad[0].what)
	}
	meta := mapping()
	meta.put("name", str(p.Name))
	if p.Namespace != "" {
		meta.put("namespace", str(p.Namespace))
	}
	meta.putMap("labels", p.Labels)
	meta.putMap("annotations", annotated(&p))
	var spec mappingNode
	switch p.Kind {
	case KindPolicy:
		spec = nativeNode(&p)
	case KindClusterNetworkPolicy:
		spec = clusterNode(&p)
	default:
		spec = namespacedNode(&p)
	}
	doc := mapping()
	doc.put("apiVersion", str(versionsOf(p.Kind)[0]))
	doc.put("kind", str(p.Kind))
	doc.put("metadata", meta.Node)
	doc.put("spec", spec.Node)
	return render(doc.Node, p.Comment)
}

// unwritable finds what the policy says and its kind has no field for.
func unwritable(p *Policy) []problem {
	c := &checker{kind: p.Kind}
	s := &p.Spec
	if p.Kind == KindAdminNetworkPolicy || p.Kind == KindBaselineAdminNetworkPolicy {
		c.add("kind", "%s is read, not written; make it a %s", p.Kind, KindClusterNetworkPolicy)
	}
	if p.Kind != KindPolicy {
		if s.Severity != "" || s.Reason != "" || p.Kind == KindNetworkPolicy && statedPriority(p) != defaultPriority {
			c.add("spec", "severity, reason and priority: not of a %s", p.Kind)
		}
		for _, d := range []Direction{Ingress, Egress} {
			for i, r := range p.Rules(d) {
				if r.Severity != "" || r.Reason != "" || !r.Expires.IsZero() || p.Kind == KindNetworkPolicy && r.Name != "" {
					c.add(fmt.Sprintf("spec.%s[%d]", d, i), "name, expires, severity and reason: not of a rule of a %s", p.Kind)
				}
				if isCluster(p.Kind) {
					c.clusterRule(fmt.Sprintf("spec.%s[%d]", d, i), r)
				}
			}
		}
	}
	return c.bad
}

// annotated is the policy's annotations with mode and onDeny in kinds that have no field for them.
func annotated(p *Policy) map[string]string {
	if p.Kind == KindPolicy {
		return p.Annotations
	}
	out := maps.Clone(p.Annotations)
	if out == nil {
		out = map[string]string{}
	}
	say := func(key, word string) {
		if word != "" {
			out[key] = word
		} else {
			delete(out, key)
		}
	}
	if p.Shadow != (out[ModeAnnotation] == ModeShadow) {
		say(ModeAnnotation, map[bool]string{true: ModeShadow}[p.Shadow])
	}
	say(OnDenyAnnotation, p.Spec.OnDeny.String())
	return out
}

func nativeNode(p *Policy) mappingNode {
	spec := mapping()
	if p.Shadow {
		spec.put("mode", str(ModeShadow))
	}
	if p.Spec.Priority != 0 {
		spec.put("priority", integer(p.Spec.Priority))
	}
	spec.putWord("severity", p.Spec.Severity)
	spec.putWord("reason", p.Spec.Reason)
	spec.putWord("onDeny", p.Spec.OnDeny.String())
	spec.Content = append(spec.Content, namespacedNode(p).Content...)
	return spec
}

func namespacedNode(p *Policy) mappingNode {
	spec := mapping()
	spec.put("podSelector", selectorNode(&p.Spec.PodSelector))
	if len(p.Spec.PolicyTypes) > 0 {
		types := sequence()
		for _, t := range p.Spec.PolicyTypes {
			types.Content = append(types.Content, str(string(t)))
		}
		types.Style = yaml.FlowStyle
		spec.put("policyTypes", types)
	}
	spec.putRules("ingress", "from", p.Spec.Ingress)
	spec.putRules("egress", "to", p.Spec.Egress)
	return spec
}

// MarshalAll writes policies as documents of one file.
func MarshalAll(policies []Policy) ([]byte, error) {
	var out bytes.Buffer
	for i, p := range policies {
		text, err := Marshal(p)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			out.WriteString("---\n")
		}
		out.Write(text)
	}
	return out.Bytes(), nil
}

func render(doc *yaml.Node, comment []string) ([]byte, error) {
	var out bytes.Buffer
	if c := commentOf(comment); c != "" {
		out.WriteString(c + "\n")
	}
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	enc.CompactSeqIndent()
	if err := enc.Encode(doc); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// commentOf writes lines as a YAML comment. Line breaks within one make more lines, so that no
// text can leave its comment.
func commentOf(lines []string) string {
	var out []string
	for _, l := range lines {
		for _, part := range strings.FieldsFunc(l, isBreak) {
			out = append(out, "# "+strings.ToValidUTF8(part, "?"))
		}
	}
	return strings.Join(out, "\n")
}

// isBreak: YAML's line breaks, 1.1's too, and other control characters that YAML refuses.
func isBreak(r rune) bool {
	return r < ' ' && r != '\t' || r >= 0x7f && r <= 0x9f || r == 0x2028 || r == 0x2029 || r == 0xfeff || r >= 0xfffe && r <= 0xffff
}

// mappingNode is a YAML mapping while it is filled.
type mappingNode struct{ *yaml.Node }

func mapping() mappingNode { return mappingNode{&yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}} }
func sequence() *yaml.Node { return &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"} }

func (m mappingNode) put(key string, value *yaml.Node) {
	m.Content = append(m.Content, str(key), value)
}

// putWord leaves an empty one out.
func (m mappingNode) putWord(key, word string) {
	if word != "" {
		m.put(key, str(word))
	}
}

func (m mappingNode) putMap(key string, values map[string]string) {
	if len(values) == 0 {
		return
	}
	inner := mapping()
	for _, k := range sortedKeys(values) {
		inner.put(k, str(values[k]))
	}
	m.put(key, inner.Node)
}

// putRules writes a list of rules; a list that is there and empty is left out, which means the same.
func (m mappingNode) putRules(key, peers string, rules []Rule) {
	if len(rules) == 0 {
		return
	}
	out := sequence()
	for _, r := range rules {
		n := mapping()
		n.putWord("name", r.Name)
		if r.Action == ActionDeny {
			n.put("action", str("Deny"))
		}
		if !r.Expires.IsZero() {
			n.put("expires", str(r.Expires.UTC().Format(time.RFC3339)))
		}
		n.putWord("severity", r.Severity)
		n.putWord("reason", r.Reason)
		if len(r.Peers) > 0 {
			list := sequence()
			for _, p := range r.Peers {
				list.Content = append(list.Content, peerNode(p))
			}
			n.put(peers, list)
		}
		if len(r.Ports) > 0 {
			list := sequence()
			for _, p := range r.Ports {
				list.Content = append(list.Content, portNode(p))
			}
			n.put("ports", list)
		}
		if len(n.Content) == 0 {
			n.Style = yaml.FlowStyle // {}: everybody, every port
		}
		n.HeadComment = commentOf(r.Comment)
		out.Content = append(out.Content, n.Node)
	}
	m.put(key, out)
}

func peerNode(p Peer) *yaml.Node {
	n := mapping()
	if p.PodSelector != nil {
		n.put("podSelector", selectorNode(p.PodSelector))
	}
	if p.NamespaceSelector != nil {
		n.put("namespaceSelector", selectorNode(p.NamespaceSelector))
	}
	if p.IPBlock != nil {
		n.put("ipBlock", blockNode(p.IPBlock))
	}
	n.putWord("network", p.Network)
	if p.Service != nil {
		service := mapping()
		service.put("name", str(p.Service.Name))
		service.putWord("namespace", p.Service.Namespace)
		n.put("service", service.Node)
	}
	n.putWord("dnsName", p.DNSName)
	return n.Node
}

func blockNode(b *networkingv1.IPBlock) *yaml.Node {
	n := mapping()
	n.put("cidr", str(b.CIDR))
	if len(b.Except) > 0 {
		list := sequence()
		for _, e := range b.Except {
			list.Content = append(list.Content, str(e))
		}
		n.put("except", list)
	}
	return n.Node
}

func portNode(p Port) *yaml.Node {
	n := mapping()
	protocol := p.Protocol
	if protocol == identity.AnyProtocol {
		protocol = identity.TCP
	}
	n.put("protocol", str(protocol.String()))
	if p.Port != nil {
		if p.Port.Type == intstr.String {
			n.put("port", str(p.Port.StrVal))
		} else {
			n.put("port", integer(p.Port.IntVal))
		}
	}
	if p.EndPort != nil {
		n.put("endPort", integer(*p.EndPort))
	}
	return n.Node
}

func selectorNode(s *metav1.LabelSelector) *yaml.Node {
	n := mapping()
	n.putMap("matchLabels", s.MatchLabels)
	if len(s.MatchExpressions) > 0 {
		list := sequence()
		for _, e := range s.MatchExpressions {
			x := mapping()
			x.put("key", str(e.Key))
			x.put("operator", str(string(e.Operator)))
			if len(e.Values) > 0 {
				values := sequence()
				values.Style = yaml.FlowStyle
				for _, v := range e.Values {
					values.Content = append(values.Content, str(v))
				}
				x.put("values", values)
			}
			list.Content = append(list.Content, x.Node)
		}
		n.put("matchExpressions", list)
	}
	if len(n.Content) == 0 {
		n.Style = yaml.FlowStyle
	}
	return n.Node
}

// str makes a string node, in quotes where it would be read as something else, by YAML 1.1 readers
// too.
func str(s string) *yaml.Node {
	n := &yaml.Node{}
	if err := n.Encode(s); err != nil {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Style: yaml.DoubleQuotedStyle}
	}
	return n
}

func integer(i int32) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: fmt.Sprint(i)}
}
