package policy

import (
	"bytes"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// anew is the first line of the text of a policy that could not be cut out of the list that it came
// in: lines in it are not lines of the file.
const anew = "# Printed anew from a list.\n"

// At tells where a field stands in the file that the policy was read from: "shop.yaml:14:9". path is
// one of the one form, as in messages: "spec.ingress[0].from[1].ipBlock.cidr". A field that the
// document does not have is where the nearest part of it is that the document has. Empty: the policy
// was read from no file.
func (p *Policy) At(path string) string { return p.Positions().At(path) }

// Positions tells where many fields of one policy stand. They are found by reading its text again,
// which a policy in force need not carry around.
func (p *Policy) Positions() *Positions {
	ps := &Positions{source: p.Source}
	file, first, ok := cutSource(p.Source)
	if !ok || strings.HasPrefix(p.Text, anew) {
		return ps
	}
	var root yaml.Node
	if yaml.NewDecoder(bytes.NewReader([]byte(p.Text))).Decode(&root) != nil || len(root.Content) == 0 {
		return ps
	}
	dec := &decoder{nodes: map[string]*yaml.Node{}}
	r := readingOf(p.Kind)
	dec.value(root.Content[0], reflect.ValueOf(r.into).Elem(), "")
	_, _, ps.places = r.convert()
	ps.file, ps.first, ps.nodes = file, first-root.Content[0].Line, dec
	return ps
}

// Positions is where the fields of one policy stand.
type Positions struct {
	source string
	file   string
	first  int // what to add to a line of the text
	nodes  *decoder
	places map[string]string
}

// At is as [Policy.At].
func (ps *Positions) At(path string) string {
	if ps.nodes == nil {
		return ps.source
	}
	n := ps.nodes.node(inDocument(ps.places, path))
	if n == nil {
		return ps.source
	}
	return fmt.Sprintf("%s:%d:%d", ps.file, n.Line+ps.first, max(n.Column, 1))
}

// inDocument is a path of the one form as a path of the document, by its longest part that stands
// elsewhere there.
func inDocument(places map[string]string, path string) string {
	for head := path; head != ""; {
		if there, ok := places[head]; ok {
			return there + path[len(head):]
		}
		head = head[:max(strings.LastIndexAny(head, ".["), 0)]
	}
	return path
}

// cutSource splits "shop.yaml:14".
func cutSource(source string) (file string, line int, ok bool) {
	i := strings.LastIndexByte(source, ':')
	if i < 0 {
		return "", 0, false
	}
	line, err := strconv.Atoi(source[i+1:])
	return source[:i], line, err == nil
}

// itemText is the text of one item of a list of objects: its own lines of the file, where they are
// its own, with their indentation; else printed anew.
func itemText(d document, items *yaml.Node, i int) (string, error) {
	item := items.Content[i]
	last := -1 // up to the end
	if i+1 < len(items.Content) {
		last = items.Content[i+1].Line - 1
	}
	if items.Style&yaml.FlowStyle == 0 && item.Kind == yaml.MappingNode && item.Style&yaml.FlowStyle == 0 {
		lines := strings.SplitAfter(string(d.text), "\n")
		if last < 0 || last > len(lines) {
			last = len(lines)
		}
		if item.Line >= 1 && item.Line <= last {
			text := cutItem(lines[item.Line-1:last], item.Column)
			var again yaml.Node
			if yaml.Unmarshal([]byte(text), &again) == nil && len(again.Content) == 1 && sameNodes(again.Content[0], item, 0) {
				return text, nil
			}
		}
	}
	text, err := yaml.Marshal(item)
	return anew + string(text), err
}

// cutItem keeps the lines that belong to a block at that column, the first without what stands before
// it.
func cutItem(lines []string, column int) string {
	var out strings.Builder
	for i, l := range lines {
		switch body := strings.TrimLeft(l, " "); {
		case i == 0 && len(l) >= column:
			out.WriteString(strings.Repeat(" ", column-1) + l[column-1:])
		case len(l)-len(body) < column-1 && strings.TrimSpace(body) != "":
			return out.String()
		default:
			out.WriteString(l)
		}
	}
	return out.String()
}

// sameNodes says whether two trees hold the same; anchors from elsewhere make them differ.
func sameNodes(a, b *yaml.Node, depth int) bool {
	if a.Kind != b.Kind || a.Value != b.Value || a.ShortTag() != b.ShortTag() || len(a.Content) != len(b.Content) || depth > 100 {
		return false
	}
	for i := range a.Content {
		if !sameNodes(a.Content[i], b.Content[i], depth+1) {
			return false
		}
	}
	return true
}
