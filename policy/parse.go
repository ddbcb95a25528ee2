package policy

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// What one call of Parse takes at most. An API server stores 1.5 MiB of one object (etcd's bound);
// an exported list of them may have more.
const (
	maxFile     = 16 << 20
	maxDocument = 4 << 20
	maxPolicies = 100_000
	maxErrors   = 100

	// How many YAML nodes are visited, those behind aliases counted each time: what an alias bomb
	// grows.
	maxNodes     = 500_000   // of one document
	maxFileNodes = 4_000_000 // of all documents
)

// DefaultNamespace is a policy's namespace where it names none.
const DefaultNamespace = "default"

// Parse reads the policies of a file: documents parted by "---", of the kinds Policy
// (bulkhead.dev/v1alpha1), NetworkPolicy (networking.k8s.io/v1), and lists of them. name is for
// messages. Empty documents are passed over.
//
// It is strict: an unknown field, a wrong type, a selector, CIDR or port that means nothing, a key or
// a policy given twice are errors. All of them are returned, joined, in the order of the file, each
// "name:line:column: what is wrong"; then no policy is.
func Parse(name string, data []byte) ([]Policy, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s:1:1: %d bytes, bound %d; nothing was read", name, len(data), maxFile)
	}
	f := &file{name: name, seen: map[Key]string{}}
	for _, d := range split(data) {
		f.document(d)
		if f.total, f.visited = f.total+f.visited, 0; f.total > maxFileNodes {
			f.add(d.line, 1, "more than %d values with all aliases expanded; the rest of the file was not read", maxFileNodes)
			break
		}
	}
	if len(f.bad) > 0 {
		return nil, f.errors()
	}
	return f.policies, nil
}

// file is one file while it is read.
type file struct {
	name     string
	policies []Policy
	seen     map[Key]string
	bad      []placed
	refused  bool // the bound of policies was reached, and said
	visited  int  // nodes of this document
	total    int  // nodes of those before it
}

type placed struct {
	line, column int
	what         string
}

// object reads one API object: a policy or a list of them.
func (f *file) object(d document, n *yaml.Node, text string) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		f.add(d.line+n.Line-1, n.Column, "want a policy, got %s", describe(n))
		return
	}
	version, kind := child(n, "apiVersion"), child(n, "kind")
	switch {
	case kind == nil || kind.Value == "":
		f.add(d.line+n.Line-1, n.Column, "kind is missing; want %s or %s", KindNetworkPolicy, KindPolicy)
	case version == nil || version.Value == "":
		f.add(d.line+n.Line-1, n.Column, "apiVersion is missing; want %s", versionOf(kind.Value))
	case kind.Value == KindNetworkPolicy && version.Value == KubernetesVersion:
		var doc kubernetesDocument
		f.policy(d, n, text, &doc, func() (Policy, []problem) { return fromKubernetes(&doc.NetworkPolicy) })
	case kind.Value == KindPolicy && version.Value == NativeVersion:
		var doc nativeDocument
		f.policy(d, n, text, &doc, func() (Policy, []problem) { return fromNative(&doc) })
	case kind.Value == "List" && version.Value == "v1",
		kind.Value == "NetworkPolicyList" && version.Value == KubernetesVersion,
		kind.Value == "PolicyList" && version.Value == NativeVersion:
		f.list(d, n)
	case kind.Value == KindNetworkPolicy || kind.Value == KindPolicy:
		f.add(d.line+version.Line-1, version.Column, "apiVersion %q of a %s: want %s%s", shorten(version.Value), kind.Value,
			versionOf(kind.Value), didYouMean(version.Value, []string{versionOf(kind.Value)}))
	default:
		known := []string{KindNetworkPolicy, KindPolicy}
		f.add(d.line+kind.Line-1, kind.Column, "kind %q: want %s%s", shorten(kind.Value), list(known), didYouMean(kind.Value, known))
	}
}

func versionOf(kind string) string {
	if kind == KindPolicy {
		return NativeVersion
	}
	return KubernetesVersion
}

// child finds a scalar field of a mapping.
func child(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key && n.Content[i+1].Kind == yaml.ScalarNode {
			return n.Content[i+1]
		}
	}
	return nil
}

func (f *file) list(d document, n *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Value != "items":
		case value.Kind != yaml.SequenceNode:
			f.add(d.line+value.Line-1, value.Column, "items: want a list, got %s", describe(value))
		default:
			for _, item := range value.Content {
				text, err := yaml.Marshal(item)
				if err != nil {
					f.add(d.line+item.Line-1, item.Column, "%s", strings.TrimPrefix(err.Error(), "yaml: "))
					continue
				}
				if k := child(item, "kind"); k != nil && strings.HasSuffix(k.Value, "List") {
					f.add(d.line+k.Line-1, k.Column, "kind %s: a list within a list", shorten(k.Value))
					continue
				}
				f.object(d, item, string(text))
			}
		}
	}
}

// policy decodes, converts, checks and keeps one policy, or says all that is wrong with it.
func (f *file) policy(d document, n *yaml.Node, text string, into any, convert func() (Policy, []problem)) {
	dec := &decoder{nodes: map[string]*yaml.Node{}, visited: f.visited}
	dec.value(n, reflect.ValueOf(into).Elem(), "")
	f.visited = dec.visited
	for _, m := range dec.bad {
		f.add(d.line+m.node.Line-1, m.node.Column, "%s", m.what)
	}
	if dec.visited > maxNodes || len(dec.bad) > maxErrors {
		return
	}
	p, bad := convert()
	if p.Namespace == "" {
		p.Namespace = DefaultNamespace
	}
	for _, b := range append(bad, check(&p)...) {
		at := dec.node(b.path)
		if len(dec.bad) > 0 && misreads(dec.bad, at) {
			continue // follows from what was said already
		}
		f.add(d.line+at.Line-1, at.Column, "%s", b.what)
	}
	p.Source = fmt.Sprintf("%s:%d", f.name, d.line+n.Line-1)
	p.Text = text
	if first, twice := f.seen[p.Key()]; twice && p.Name != "" {
		at := dec.node("metadata.name")
		f.add(d.line+at.Line-1, at.Column, "%s is defined already at %s", p.Key(), first)
		return
	}
	f.seen[p.Key()] = p.Source
	if len(f.policies) >= maxPolicies {
		if !f.refused {
			f.add(d.line+n.Line-1, n.Column, "more than %d policies in one file", maxPolicies)
		}
		f.refused = true
		return
	}
	f.policies = append(f.policies, p)
}

// misreads says whether a node, or one inside of it, could not be decoded: then its value is not
// what the file says, and what check finds there follows from that.
func misreads(bad []misplaced, at *yaml.Node) bool {
	for _, m := range bad {
		if within(at, m.node, 0) {
			return true
		}
	}
	return false
}

func within(n, target *yaml.Node, depth int) bool {
	if n == target {
		return true
	}
	if n == nil || depth > 16 {
		return false
	}
	for _, c := range n.Content {
		if within(c, target, depth+1) {
			return true
		}
	}
	return false
}
