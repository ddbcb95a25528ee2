package policy

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// decoder fills Go values from YAML nodes by their json tags, strictly, and remembers where each
// path stands, so that whatever is found wrong later can be placed.
//
// It decodes from nodes because the strict decoders at hand work on JSON, where lines are gone.
type decoder struct {
	nodes   map[string]*yaml.Node
	bad     []misplaced
	visited int
}

// misplaced is a problem at a node.
type misplaced struct {
	node *yaml.Node
	what string
}

func (d *decoder) add(n *yaml.Node, format string, args ...any) {
	d.bad = append(d.bad, misplaced{n, fmt.Sprintf(format, args...)})
}

// node is where a path stands, or the nearest part of it that is there.
func (d *decoder) node(path string) *yaml.Node {
	for {
		if n := d.nodes[path]; n != nil || path == "" {
			return n
		}
		i := strings.LastIndexAny(path, ".[")
		if strings.HasSuffix(path, "]") {
			// A label's key in brackets may hold dots.
			if j := strings.Index(path, "matchLabels["); j >= 0 {
				i = j + len("matchLabels")
			}
		}
		path = path[:max(i, 0)]
	}
}

// value fills v, which is settable, from n.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string) {
	if d.visited++; d.visited > maxNodes {
		if d.visited == maxNodes+1 {
			d.add(n, "more than %d values with all aliases expanded; nothing of the document is used", maxNodes)
		}
		return
	}
	d.nodes[path] = n
	if n.Kind == yaml.AliasNode {
		d.value(n.Alias, v, path)
		d.nodes[path] = n
		return
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return // as if it were left out
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), path)
		d.nodes[path] = n
		return
	}
	switch target := v.Addr().Interface().(type) {
	case *intstr.IntOrString:
		d.number(n, target)
		return
	case json.Unmarshaler:
		d.foreign(n, target)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Map:
		d.mapping(n, v, path)
	case reflect.Slice:
		d.sequence(n, v, path)
	default:
		d.scalar(n, v)
	}
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.ScalarNode {
		d.add(n, "want %s, got %s", kindOf(v), describe(n))
		return
	}
	tag := n.ShortTag()
	switch v.Kind() {
	case reflect.String:
		if tag != "!!str" {
			d.add(n, `want a string, got %s; write it in quotes: %q`, describe(n), n.Value)
			return
		}
		v.SetString(n.Value)
	case reflect.Bool, reflect.Int, reflect.Int32, reflect.Int64:
		if tag != "!!int" && v.Kind() != reflect.Bool || tag != "!!bool" && v.Kind() == reflect.Bool {
			d.add(n, "want %s, got %s", kindOf(v), describe(n))
			return
		}
		if err := n.Decode(v.Addr().Interface()); err != nil {
			d.add(n, "%s: out of range", n.Value)
		}
	case reflect.Interface:
		// Only in fields that are read over.
	default:
		d.add(n, "want %s, got %s", kindOf(v), describe(n))
	}
}

// number reads a port: a number or a name.
func (d *decoder) number(n *yaml.Node, v *intstr.IntOrString) {
	if n.Kind == yaml.ScalarNode {
		switch n.ShortTag() {
		case "!!int":
			var i int32
			if err := n.Decode(&i); err != nil {
				d.add(n, "port %s: out of range 1-65535", n.Value)
				return
			}
			*v = intstr.FromInt32(i)
			return
		case "!!str":
			*v = intstr.FromString(n.Value)
			return
		}
	}
	d.add(n, "want a port's number or name, got %s", describe(n))
}

// foreign hands a value to a type with a decoder of its own (times and the like in metadata).
func (d *decoder) foreign(n *yaml.Node, v json.Unmarshaler) {
	var plain any
	err := n.Decode(&plain)
	if t, ok := plain.(interface{ Format(string) string }); ok {
		plain = t.Format("2006-01-02T15:04:05Z07:00") // YAML's own timestamps
	}
	var text []byte
	if err == nil {
		text, err = json.Marshal(plain)
	}
	if err == nil {
		err = v.UnmarshalJSON(text)
	}
	if err != nil {
		d.add(n, "%s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
}

func (d *decoder) sequence(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		hint := ""
		if n.Kind == yaml.MappingNode {
			hint = `; each item of a list starts with "- "`
		}
		d.add(n, "want a list, got %s%s", describe(n), hint)
		return
	}
	out := reflect.MakeSlice(v.Type(), 0, 0)
	for i, item := range n.Content {
		if d.visited > maxNodes {
			return
		}
		if item.Kind == yaml.ScalarNode && item.ShortTag() == "!!null" {
			d.add(item, "the list item is empty; write {} if an empty one is meant, or remove it")
			continue
		}
		element := reflect.New(v.Type().Elem()).Elem()
		d.value(item, element, fmt.Sprintf("%s[%d]", path, i))
		out = reflect.Append(out, element)
	}
	v.Set(out)
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.add(n, "want keys with values, got %s", describe(n))
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, f := range d.fields(n) {
		element := reflect.New(v.Type().Elem()).Elem()
		d.value(f.value, element, path+"["+f.key.Value+"]")
		v.SetMapIndex(reflect.ValueOf(f.key.Value), element)
	}
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.add(n, "want fields with values, got %s", describe(n))
		return
	}
	targets := map[string]reflect.Value{}
	jsonFields(v, targets)
	for _, f := range d.fields(n) {
		target, known := targets[f.key.Value]
		if !known {
			names := sortedKeys(targets)
			hint := didYouMean(f.key.Value, names)
			if hint == "" && len(names) <= 8 {
				hint = "; known are " + strings.Join(names, ", ")
			}
			d.add(f.key, "unknown field %q%s", f.key.Value, hint)
			continue
		}
		at := strings.TrimPrefix(path+"."+f.key.Value, ".")
		d.value(f.value, target, at)
	}
}

// jsonFields lists the fields of a struct, those of inlined structs too, by their json names.
func jsonFields(v reflect.Value, out map[string]reflect.Value) {
	t := v.Type()
	for i := range t.NumField() {
		name, options, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		switch {
		case name == "-" || !t.Field(i).IsExported() && !t.Field(i).Anonymous:
		case name == "" && (options == "inline" || t.Field(i).Anonymous):
			jsonFields(v.Field(i), out)
		case name != "":
			out[name] = v.Field(i)
		}
	}
}

// describe says what a node is, for people.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "fields with values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "the number " + shorten(n.Value)
	case "!!bool":
		return "the truth value " + shorten(n.Value)
	case "!!null":
		return "nothing"
	case "!!timestamp":
		return "the time " + shorten(n.Value)
	}
	return fmt.Sprintf("%q", shorten(n.Value))
}

func kindOf(v reflect.Value) string {
	switch v.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	}
	return "a number"
}

// shorten keeps messages readable whatever the file holds.
func shorten(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(slices.Concat(r[:37], []rune("...")))
	}
	return s
}
