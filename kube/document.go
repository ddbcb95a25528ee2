package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	maxFileSize  = 64 << 20 // bytes of one manifest file; a cluster of 10,000 pods dumps to about 40 MiB
	maxListDepth = 4        // Lists inside of Lists
	maxItemNodes = 500_000  // values of one item of a List that is handed on
)

// object is one Kubernetes object as a YAML tree that still knows its lines.
type object struct {
	file string
	base int // lines before the document that the tree was parsed from
	node *yaml.Node
	text string // of the whole document; empty for an item of a List
	api  string
	kind string
}

// chunk is one document of a stream.
type chunk struct {
	base int // lines before it
	text []byte
}

// split cuts a YAML stream at its document markers. A line that begins with "---" is a marker
// wherever it stands: no scalar may hold one (YAML 1.2.2, 9.1.2).
func split(data []byte) []chunk {
	var out []chunk
	start, base, line := 0, 0, 0
	for pos := 0; pos < len(data); {
		end := pos + bytes.IndexByte(data[pos:], '\n') + 1
		if end == pos {
			end = len(data)
		}
		row := bytes.TrimRight(data[pos:end], "\r\n")
		if bytes.HasPrefix(row, []byte("---")) && (len(row) == 3 || row[3] == ' ' || row[3] == '\t') {
			out = append(out, chunk{base, data[start:pos]})
			start, base = pos+3, line // the rest of the marker's line belongs to the document
		}
		pos = end
		line++
	}
	return append(out, chunk{base, data[start:]})
}

// objects lists the objects of one file; a List gives its items.
func objects(file string, data []byte) ([]object, error) {
	if len(data) > maxFileSize {
		return nil, fmt.Errorf("%s: %d bytes: more than %d; split the file", file, len(data), maxFileSize)
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if json.Valid(data) { // YAML forbids the tab as indentation, JSON does not; valid JSON has none in strings
		data = bytes.ReplaceAll(data, []byte{'\t'}, []byte{' '})
	}
	var out []object
	var errs []error
	for _, c := range split(data) {
		var doc yaml.Node
		if err := yaml.Unmarshal(c.text, &doc); err != nil {
			errs = append(errs, syntaxError(file, c.base, err))
			continue
		}
		if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
			continue
		}
		o := object{file: file, base: c.base, node: doc.Content[0], text: string(c.text)}
		list, err := o.expand("", "", 0)
		out = append(out, list...)
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
}

// expand reads apiVersion and kind, which items of a typed list (PodList) may leave out, and
// replaces a List by its items.
func (o object) expand(api, kind string, depth int) ([]object, error) {
	if o.node.Kind != yaml.MappingNode {
		return nil, o.errorf(o.node, "not a Kubernetes object: want a mapping with apiVersion and kind")
	}
	o.api, o.kind = stated(o.node, "apiVersion", api), stated(o.node, "kind", kind)
	if o.kind == "" {
		return nil, o.errorf(o.node, "kind: missing; want a Kubernetes object")
	}
	items := child(o.node, "items")
	item, isList := strings.CutSuffix(o.kind, "List")
	if !isList || items == nil {
		return []object{o}, nil
	}
	if depth == maxListDepth {
		return nil, o.errorf(o.node, "lists nested deeper than %d", maxListDepth)
	}
	if items.Kind != yaml.SequenceNode {
		if items.Tag == "!!null" {
			return nil, nil
		}
		return nil, o.errorf(items, "items: want a list")
	}
	itemAPI := o.api
	if item == "" {
		itemAPI = ""
	}
	var out []object
	var errs []error
	for _, n := range items.Content {
		list, err := object{file: o.file, base: o.base, node: n}.expand(itemAPI, item, depth+1)
		out = append(out, list...)
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
}

// stated is a field of the object; where it is left out, what its list says is written into it, so that
// the object can be handed on alone.
func stated(n *yaml.Node, key, inherited string) string {
	if v := child(n, key); v != nil {
		return v.Value
	}
	if inherited != "" {
		n.Content = append([]*yaml.Node{
			{Kind: yaml.ScalarNode, Tag: "!!str", Value: key, Line: n.Line, Column: n.Column},
			{Kind: yaml.ScalarNode, Tag: "!!str", Value: inherited, Line: n.Line, Column: n.Column},
		}, n.Content...)
	}
	return inherited
}

func (o object) line(n *yaml.Node) int { return o.base + max(n.Line, 1) }

func (o object) errorf(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", o.file, o.line(n), fmt.Errorf(format, args...))
}

// document hands the object on as text.
func (o object) document() (Document, error) {
	d := Document{Kind: o.kind, Name: o.name(), File: o.file, Line: o.base + 1, Text: o.text}
	for { // so that line 1 of the text is Line of the file
		row, rest, more := strings.Cut(d.Text, "\n")
		if !more || strings.TrimSpace(row) != "" {
			break
		}
		d.Line, d.Text = d.Line+1, rest
	}
	if d.Text == "" {
		d.Line = o.line(o.node)
		room := maxItemNodes
		tree := whole(o.node, &room)
		if room < 0 {
			return d, o.errorf(o.node, "%s %s: more than %d values with all aliases expanded", o.kind, d.Name, maxItemNodes)
		}
		b, err := yaml.Marshal(tree)
		if err != nil {
			return d, o.errorf(o.node, "%s %s: %w", o.kind, d.Name, err)
		}
		d.Text = string(b)
	}
	return d, nil
}

// whole is a tree with what its aliases stand for in their places: the anchors may be in other items of
// the list. It gives up when room for nodes is used up, which is then negative.
func whole(n *yaml.Node, room *int) *yaml.Node {
	if *room--; *room < 0 {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
	}
	if n.Kind == yaml.AliasNode {
		return whole(n.Alias, room)
	}
	out := *n
	out.Anchor, out.Content = "", make([]*yaml.Node, len(n.Content))
	for i, c := range n.Content {
		out.Content[i] = whole(c, room)
	}
	return &out
}

// name is namespace/name as far as the object says.
func (o object) name() string {
	meta := child(o.node, "metadata")
	ns, name := child(meta, "namespace"), child(meta, "name")
	switch {
	case name == nil:
		return "?"
	case ns == nil:
		return name.Value
	}
	return ns.Value + "/" + name.Value
}

// child is the value of a key of a mapping; nil when there is none.
func child(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			if v := n.Content[i+1]; v.Kind == yaml.AliasNode {
				return v.Alias
			}
			return n.Content[i+1]
		}
	}
	return nil
}

// at follows a path such as "spec.containers[0].ports[1]" as far as the tree goes and gives the
// deepest node reached, so that an error always has a line.
func (o object) at(path string) *yaml.Node {
	n := o.node
	for _, step := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		next := child(n, step)
		if i, err := strconv.Atoi(step); err == nil && n.Kind == yaml.SequenceNode && i < len(n.Content) {
			next = n.Content[i]
		}
		if next == nil {
			break
		}
		n = next
	}
	return n
}

var (
	yamlLine  = regexp.MustCompile(`^yaml: (?:unmarshal errors:\n\s*)?(?:line (\d+): )?`)
	otherLine = regexp.MustCompile(`at line (\d+)`)
	// yaml.v3 counts the lines of its parser's errors from 0 and those of its scanner from 1; these
	// sentences are the parser's. It can go when yaml.v3 counts alike.
	fromZero = regexp.MustCompile(`^did not find expected (?:<|node content|'-' indicator|key|',' or)`)
)

// syntaxError turns the YAML library's "yaml: line 3: what" into "file:line: what".
func syntaxError(file string, base int, err error) error {
	m := yamlLine.FindStringSubmatch(err.Error())
	if m == nil {
		return fmt.Errorf("%s:%d: %w", file, base+1, err)
	}
	line, convErr := strconv.Atoi(m[1])
	if convErr != nil {
		line = 1
	}
	what := strings.ReplaceAll(strings.TrimPrefix(err.Error(), m[0]), "\n", " ")
	if fromZero.MatchString(what) {
		line++
	}
	what = otherLine.ReplaceAllStringFunc(what, func(s string) string {
		n, _ := strconv.Atoi(strings.TrimPrefix(s, "at line "))
		return "at line " + strconv.Itoa(base+n)
	})
	return fmt.Errorf("%s:%d: %s", file, base+line, what)
}
