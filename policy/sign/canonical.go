package sign

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Annotations that this package reads.
const (
	// Annotation carries a document's signature.
	Annotation = "bulkhead.dev/signature"
	// ClusterAnnotation names the only cluster that a document is for. It is signed with the rest.
	ClusterAnnotation = "bulkhead.dev/cluster"
)

// What an API server or kubectl writes into a document. It says nothing of what the policy means.
var (
	notSignedMeta        = []string{"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink"}
	notSignedAnnotations = []string{Annotation, "kubectl.kubernetes.io/last-applied-configuration"}
)

// namespaced are the kinds that are in [policy.DefaultNamespace] where they name none.
var namespaced = []string{policy.KindPolicy, policy.KindNetworkPolicy}

// maxDocument bounds a document, in bytes: it is read before it is known who sent it.
const maxDocument = 1 << 20

// maxDepth bounds how deep values are nested; a policy's are some ten deep.
const maxDepth = 64

// Document is one that is read: its nodes, and what it says.
type Document struct {
	text    []byte
	root    *yaml.Node
	content map[string]any // without what is not signed
	kind    string
	notes   map[string]any // annotations, all of them
}

// ErrEmpty says that there is nothing in a document.
var ErrEmpty = errors.New("the document is empty")

// Open takes in one document. Errors: it is not one YAML mapping, or says things in a way that two
// readers might read differently: aliases, merge keys, keys given twice, numbers with a point. [ErrEmpty].
func Open(text []byte) (*Document, error) {
	if len(text) > maxDocument {
		return nil, fmt.Errorf("document of %d bytes, bound %d", len(text), maxDocument)
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var root, more yaml.Node
	if err := dec.Decode(&root); errors.Is(err, io.EOF) {
		return nil, ErrEmpty
	} else if err != nil {
		return nil, fmt.Errorf("not YAML: %w", err)
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("two documents without --- between them")
	}
	if len(root.Content) == 0 || root.Content[0].ShortTag() == "!!null" {
		return nil, ErrEmpty
	}
	value, err := plain(root.Content[0], 0)
	if err != nil {
		return nil, err
	}
	content, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("want a policy, got no mapping")
	}
	d := &Document{text: text, root: root.Content[0], content: content}
	d.kind, _ = content["kind"].(string)
	return d, d.strip()
}

// strip takes out what is not signed.
func (d *Document) strip() error {
	delete(d.content, "status")
	meta, ok := d.content["metadata"].(map[string]any)
	if !ok {
		return errors.New("metadata is missing")
	}
	for _, key := range notSignedMeta {
		delete(meta, key)
	}
	if slices.Contains(namespaced, d.kind) && meta["namespace"] == nil {
		meta["namespace"] = policy.DefaultNamespace
	}
	notes, ok := meta["annotations"].(map[string]any)
	if meta["annotations"] != nil && !ok {
		return errors.New("metadata.annotations: want keys with values")
	}
	d.notes = maps.Clone(notes)
	for _, key := range notSignedAnnotations {
		delete(notes, key)
	}
	if len(notes) == 0 {
		delete(meta, "annotations")
	}
	return nil
}

// note is an annotation's text.
func (d *Document) note(key string) string {
	text, _ := d.notes[key].(string)
	return text
}

// canonical is what the document says, always in the same bytes: JSON with sorted keys, without spaces.
func (d *Document) canonical() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(d.content); err != nil { // maps are written in the order of their keys
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// plain turns a node into values of JSON. What is null is left out, as [policy.Parse] does.
func plain(n *yaml.Node, depth int) (any, error) {
	bad := func(format string, args ...any) (any, error) {
		return nil, fmt.Errorf("line %d: %s", n.Line, fmt.Sprintf(format, args...))
	}
	if depth > maxDepth {
		return bad("values nested more than %d deep", maxDepth)
	}
	switch n.Kind {
	case yaml.AliasNode:
		return bad("an alias: a signed document writes everything out")
	case yaml.MappingNode:
		return mapping(n, depth)
	case yaml.SequenceNode:
		out := make([]any, 0, len(n.Content))
		for _, item := range n.Content {
			v, err := plain(item, depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		return out, nil
	}
	switch tag := n.ShortTag(); tag {
	case "!!null":
		return nil, nil
	case "!!str", "!!timestamp":
		return n.Value, nil
	case "!!bool":
		var v bool
		if err := n.Decode(&v); err != nil {
			return bad("%q: %v", n.Value, err)
		}
		return v, nil
	case "!!int":
		var v int64
		if err := n.Decode(&v); err != nil {
			return bad("%q: no whole number of 64 bits", n.Value)
		}
		return json.Number(strconv.FormatInt(v, 10)), nil
	default:
		return bad("a value of type %s: no policy has one", tag)
	}
}

func mapping(n *yaml.Node, depth int) (any, error) {
	out := make(map[string]any, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" {
			return nil, fmt.Errorf("line %d: a key that is no string: a signed document writes everything out", key.Line)
		}
		if _, twice := out[key.Value]; twice {
			return nil, fmt.Errorf("line %d: %q is given twice", key.Line, key.Value)
		}
		v, err := plain(n.Content[i+1], depth+1)
		if err != nil {
			return nil, err
		}
		out[key.Value] = v
	}
	maps.DeleteFunc(out, func(_ string, v any) bool { return v == nil })
	return out, nil
}

// Subject says which policy the document is, and whether as a shadow, without judging what it says.
func (d *Document) Subject() (policy.Key, bool) {
	meta, _ := d.content["metadata"].(map[string]any)
	spec, _ := d.content["spec"].(map[string]any)
	key := policy.Key{Kind: d.kind}
	key.Namespace, _ = meta["namespace"].(string)
	key.Name, _ = meta["name"].(string)
	if key.Kind == policy.KindPolicy {
		return key, spec["mode"] == policy.ModeShadow
	}
	return key, d.note(policy.ModeAnnotation) == policy.ModeShadow
}
