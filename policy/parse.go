package policy

import (
	"fmt"
	"reflect"
	"slices"
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
// (bulkhead.dev/v1alpha1), NetworkPolicy (networking.k8s.io/v1), ClusterNetworkPolicy
// (policy.networking.k8s.io/v1alpha2 and v1beta1), the older AdminNetworkPolicy and
// BaselineAdminNetworkPolicy, and lists of them. name is for messages. Empty documents are passed
// over. Under one key a file may hold a policy in force and its shadow.
//
// It is strict: an unknown field, a wrong type, a selector, CIDR or port that means nothing, a key or
// a policy given twice are errors. All of them are returned, joined, in the order of the file, each
// "name:line:column: what is wrong"; then no policy is.
func Parse(name string, data []byte) ([]Policy, error) { return parse(name, data, false) }

// ParseAmong is [Parse] for files in which policies stand among other objects: those of a kind that
// is none of ours, nor mistyped for one, are passed over.
func ParseAmong(name string, data []byte) ([]Policy, error) { return parse(name, data, true) }

func parse(name string, data []byte, among bool) ([]Policy, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s:1:1: %d bytes, bound %d; nothing was read", name, len(data), maxFile)
	}
	f := &file{name: name, among: among, seen: map[seat]string{}}
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

// seat is what one policy of a file may take.
type seat struct {
	Key
	shadow bool
}

// file is one file while it is read.
type file struct {
	name     string
	policies []Policy
	seen     map[seat]string
	among    bool // other kinds are passed over
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
	case f.among && kind == nil:
	case kind == nil || kind.Value == "":
		f.add(d.line+n.Line-1, n.Column, "kind is missing; want %s", list(kinds))
	case isList(kind.Value, version):
		f.list(d, n)
	case !slices.Contains(kinds, kind.Value):
		if hint := didYouMean(kind.Value, kinds); hint != "" || !f.among {
			f.add(d.line+kind.Line-1, kind.Column, "kind %q: want one of %s%s", shorten(kind.Value), list(kinds), hint)
		}
	case version == nil || version.Value == "":
		f.add(d.line+n.Line-1, n.Column, "apiVersion is missing; want %s", list(versionsOf(kind.Value)))
	case !slices.Contains(versionsOf(kind.Value), version.Value):
		want := versionsOf(kind.Value)
		f.add(d.line+version.Line-1, version.Column, "apiVersion %q of a %s: want %s%s", shorten(version.Value), kind.Value, list(want), didYouMean(version.Value, want))
	default:
		f.policy(d, n, text, readingOf(kind.Value))
	}
}

// kinds lists the kinds that are read.
var kinds = []string{KindNetworkPolicy, KindPolicy, KindClusterNetworkPolicy, KindAdminNetworkPolicy, KindBaselineAdminNetworkPolicy}

// versionsOf lists the apiVersions of a kind, the first the one that Marshal writes.
func versionsOf(kind string) []string {
	switch kind {
	case KindPolicy:
		return []string{NativeVersion}
	case KindClusterNetworkPolicy:
		return []string{ClusterGroup + "/v1alpha2", ClusterGroup + "/v1beta1"}
	case KindAdminNetworkPolicy, KindBaselineAdminNetworkPolicy:
		return []string{ClusterGroup + "/v1alpha1"}
	}
	return []string{KubernetesVersion}
}

// isList says whether the object is a list of policies, or of anything.
func isList(kind string, version *yaml.Node) bool {
	item, ok := strings.CutSuffix(kind, "List")
	if !ok || version == nil {
		return false
	}
	return item == "" && version.Value == "v1" || slices.Contains(kinds, item) && slices.Contains(versionsOf(item), version.Value)
}

// reading is a document's type while it is read: what it is decoded into, and how that becomes a
// policy. places tells where paths of the one form stand in a document that has other paths.
type reading struct {
	into    any
	convert func() (p Policy, bad []problem, places map[string]string)
}

func readingOf(kind string) reading {
	switch kind {
	case KindPolicy:
		doc := &nativeDocument{}
		return reading{doc, func() (Policy, []problem, map[string]string) {
			p, bad := fromNative(doc)
			return p, bad, nil
		}}
	case KindClusterNetworkPolicy:
		doc := &clusterDocument{}
		return reading{doc, func() (Policy, []problem, map[string]string) {
			p, c := fromCluster(doc)
			return p, c.bad, c.places
		}}
	case KindAdminNetworkPolicy, KindBaselineAdminNetworkPolicy:
		doc := &adminDocument{}
		return reading{doc, func() (Policy, []problem, map[string]string) {
			p, c := fromAdmin(doc)
			return p, c.bad, c.places
		}}
	}
	doc := &kubernetesDocument{}
	return reading{doc, func() (Policy, []problem, map[string]string) {
		p, bad := fromKubernetes(&doc.NetworkPolicy)
		return p, bad, nil
	}}
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
			for j, item := range value.Content {
				inherit(item, n)
				text, err := itemText(d, value, j)
				if err != nil {
					f.add(d.line+item.Line-1, item.Column, "%s", strings.TrimPrefix(err.Error(), "yaml: "))
					continue
				}
				if k := child(item, "kind"); k != nil && strings.HasSuffix(k.Value, "List") {
					f.add(d.line+k.Line-1, k.Column, "kind %s: a list within a list", shorten(k.Value))
					continue
				}
				f.object(d, item, text)
			}
		}
	}
}

// inherit writes into an item of a typed list, "NetworkPolicyList", what it may leave out since the list
// says it.
func inherit(item, list *yaml.Node) {
	kind, _ := strings.CutSuffix(child(list, "kind").Value, "List") // it is one, see isList
	if item.Kind != yaml.MappingNode || kind == "" {
		return
	}
	for _, f := range [][2]string{{"kind", kind}, {"apiVersion", child(list, "apiVersion").Value}} {
		if child(item, f[0]) == nil {
			item.Content = append([]*yaml.Node{
				{Kind: yaml.ScalarNode, Tag: "!!str", Value: f[0], Line: item.Line, Column: item.Column},
				{Kind: yaml.ScalarNode, Tag: "!!str", Value: f[1], Line: item.Line, Column: item.Column},
			}, item.Content...)
		}
	}
}

// policy decodes, converts, checks and keeps one policy, or says all that is wrong with it.
func (f *file) policy(d document, n *yaml.Node, text string, r reading) {
	dec := &decoder{nodes: map[string]*yaml.Node{}, visited: f.visited}
	dec.value(n, reflect.ValueOf(r.into).Elem(), "")
	f.visited = dec.visited
	for _, m := range dec.bad {
		f.add(d.line+m.node.Line-1, m.node.Column, "%s", m.what)
	}
	if dec.visited > maxNodes || len(dec.bad) > maxErrors {
		return
	}
	p, bad, places := r.convert()
	if p.Namespace == "" && !isCluster(p.Kind) {
		p.Namespace = DefaultNamespace
	}
	for i, b := range append(bad, check(&p)...) {
		path := b.path
		if i >= len(bad) {
			path = inDocument(places, path)
		}
		at := dec.node(path)
		if len(dec.bad) > 0 && misreads(dec.bad, at) {
			continue // follows from what was said already
		}
		f.add(d.line+at.Line-1, at.Column, "%s", b.what)
	}
	p.Warnings = append(p.Warnings, hostBits(&p)...)
	p.Source = fmt.Sprintf("%s:%d", f.name, d.line+n.Line-1)
	p.Text = text
	f.keep(d, n, p, dec)
}

func (f *file) keep(d document, n *yaml.Node, p Policy, dec *decoder) {
	s := seat{p.Key(), p.Shadow}
	if first, twice := f.seen[s]; twice && p.Name != "" {
		at := dec.node("metadata.name")
		f.add(d.line+at.Line-1, at.Column, "%s is defined already at %s", p.Key(), first)
		return
	}
	f.seen[s] = p.Source
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
