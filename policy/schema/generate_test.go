package schema

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/jsonschema-go/jsonschema"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

var update = flag.Bool("update", false, "generate the schema anew")

// published is the copy that people find.
const published = "../../docs/schema/" + Name

// TestFresh: both files are what the types say.
func TestFresh(t *testing.T) {
	g := &generator{comments: fieldComments(t), definitions: map[string]*jsonschema.Schema{}}
	root := g.object(policy.NativeType())
	root.Schema = "http://json-schema.org/draft-07/schema#"
	root.ID = "https://raw.githubusercontent.com/bulkhead-firewall/bulkhead/main/docs/schema/" + Name
	root.Title = policy.NativeVersion + " " + policy.KindPolicy
	root.Definitions = g.definitions
	text, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	if err := json.Indent(&want, text, "", "  "); err != nil {
		t.Fatal(err)
	}
	want.WriteByte('\n')
	for _, file := range []string{Name, published} {
		if *update {
			if err := os.WriteFile(file, want.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.String(), string(got)); diff != "" {
			t.Errorf("%s is old; go test ./policy/schema -update makes it anew\n%s", file, diff)
		}
	}
	for name := range overrides {
		if !g.used(name) {
			t.Errorf("override of %s, which is no field", name)
		}
	}
}

// generator makes schemas of types. Structs become definitions, but for the root.
type generator struct {
	comments    map[string]string // "nativeSpec.mode": its comment; "nativePeer": the type's
	definitions map[string]*jsonschema.Schema
	seen        []string
}

func (g *generator) used(name string) bool {
	for _, s := range g.seen {
		if s == name {
			return true
		}
	}
	return false
}

const (
	integer = "integer"
	text    = "string"
)

func number(low, high float64) *jsonschema.Schema {
	return &jsonschema.Schema{Type: integer, Minimum: &low, Maximum: &high}
}

func words(list ...string) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: text}
	for _, w := range list {
		s.Enum = append(s.Enum, w)
	}
	return s
}

func pattern(p string) *jsonschema.Schema { return &jsonschema.Schema{Type: text, Pattern: p} }

const (
	dnsLabel     = `^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	dnsSubdomain = `^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
)

var severity = words("low", "medium", "high", "critical")

// overrides are fields whose type says less than is known of them, by type and field.
var overrides = map[string]*jsonschema.Schema{
	"nativeDocument.apiVersion":         constant(policy.NativeVersion),
	"nativeDocument.kind":               constant(policy.KindPolicy),
	"nativeMeta.name":                   {Type: text, Pattern: dnsSubdomain, MaxLength: jsonschema.Ptr(253)},
	"nativeMeta.namespace":              {Type: text, Pattern: dnsLabel, MaxLength: jsonschema.Ptr(63)},
	"nativeSpec.mode":                   words(policy.ModeEnforce, policy.ModeShadow),
	"nativeSpec.priority":               number(1, 1000),
	"nativeSpec.severity":               severity,
	"nativeSpec.onDeny":                 words(policy.Drop.String(), policy.Reject.String()),
	"nativeSpec.policyTypes":            {Type: "array", Items: words("Ingress", "Egress"), MaxItems: jsonschema.Ptr(2)},
	"nativeIngress.name":                {Type: text, MaxLength: jsonschema.Ptr(100)},
	"nativeIngress.action":              words("Allow", "Deny"),
	"nativeIngress.severity":            severity,
	"nativeEgress.name":                 {Type: text, MaxLength: jsonschema.Ptr(100)},
	"nativeEgress.action":               words("Allow", "Deny"),
	"nativeEgress.severity":             severity,
	"nativePeer.network":                {Type: text, Pattern: dnsLabel, Examples: []any{"world", "cluster", "node", "dns", "metadata"}},
	"nativeEgressPeer.network":          {Type: text, Pattern: dnsLabel, Examples: []any{"world", "cluster", "node", "dns", "metadata"}},
	"nativeEgressPeer.dnsName":          pattern(`^(\*\.)?([a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?$`),
	"nativePort.protocol":               words("TCP", "UDP", "SCTP", "ICMP", "ICMPv6"),
	"nativePort.endPort":                number(0, 65535),
	"IPBlock.cidr":                      pattern(`^[0-9a-fA-F:.]+/[0-9]{1,3}$`),
	"IPBlock.except":                    {Type: "array", Items: pattern(`^[0-9a-fA-F:.]+/[0-9]{1,3}$`)},
	"ServiceRef.name":                   pattern(`^[a-z]([-a-z0-9]*[a-z0-9])?$`),
	"ServiceRef.namespace":              pattern(dnsLabel),
	"LabelSelectorRequirement.operator": words("In", "NotIn", "Exists", "DoesNotExist"),
}

func constant(s string) *jsonschema.Schema {
	return &jsonschema.Schema{Type: text, Const: jsonschema.Ptr[any](s)}
}

// optional are fields without omitempty that may be left out all the same.
var optional = map[string]bool{"nativeSpec.podSelector": true}

// object is the schema of a struct.
func (g *generator) object(t reflect.Type) *jsonschema.Schema {
	s := &jsonschema.Schema{
		Type: "object", Description: g.comments[t.Name()], Properties: map[string]*jsonschema.Schema{},
		AdditionalProperties: &jsonschema.Schema{Not: &jsonschema.Schema{}},
	}
	g.fields(s, t.Name(), t)
	switch t.Name() {
	case "nativePeer", "nativeEgressPeer":
		oneForm(s)
	case "nativePort":
		s.DependencyStrings = map[string][]string{"endPort": {"port"}}
	}
	return s
}

// fields adds the fields of a struct, and of those that are inlined, under the outer one's name.
func (g *generator) fields(s *jsonschema.Schema, outer string, t reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			g.fields(s, outer, f.Type)
			continue
		}
		key := outer + "." + name
		g.seen = append(g.seen, key)
		p, ok := overrides[key]
		if ok {
			p = p.CloneSchemas()
		} else {
			p = g.schema(f.Type)
		}
		comment := g.comments[t.Name()+"."+name]
		if comment == "" {
			comment = swagger(t)[name]
		}
		if p.Ref != "" { // draft-07 reads nothing beside a $ref
			p = &jsonschema.Schema{AllOf: []*jsonschema.Schema{p}}
		}
		p.Description = comment
		s.Properties[name] = p
		s.PropertyOrder = append(s.PropertyOrder, name)
		if !strings.Contains(options, "omitempty") && !optional[key] {
			s.Required = append(s.Required, name)
		}
	}
}

// swagger is what Kubernetes' own types say of their fields.
func swagger(t reflect.Type) map[string]string {
	if d, ok := reflect.New(t).Interface().(interface{ SwaggerDoc() map[string]string }); ok {
		return d.SwaggerDoc()
	}
	return nil
}

func (g *generator) schema(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[intstr.IntOrString]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{number(0, 65535), {Type: text, Pattern: `^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`, MaxLength: jsonschema.Ptr(15)}}}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return g.schema(t.Elem())
	case reflect.String:
		return &jsonschema.Schema{Type: text}
	case reflect.Int32:
		return &jsonschema.Schema{Type: integer}
	case reflect.Slice:
		return &jsonschema.Schema{Type: "array", Items: g.schema(t.Elem())}
	case reflect.Map:
		return &jsonschema.Schema{Type: "object", AdditionalProperties: g.schema(t.Elem())}
	case reflect.Struct:
		if t.Name() == "expiry" {
			return pattern(`^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.]+(Z|[-+][0-9]{2}:[0-9]{2}))?$`)
		}
		name := definition(t)
		if g.definitions[name] == nil {
			g.definitions[name] = &jsonschema.Schema{} // ends a recursion
			g.definitions[name] = g.object(t)
		}
		return &jsonschema.Schema{Ref: "#/definitions/" + name}
	}
	panic(fmt.Sprintf("no schema for %s", t))
}

func definition(t reflect.Type) string {
	name := strings.TrimPrefix(strings.TrimPrefix(t.Name(), "native"), "IP")
	return strings.ToLower(name[:1]) + name[1:]
}

// oneForm: a peer is selectors, or exactly one of the other forms.
func oneForm(s *jsonschema.Schema) {
	s.MinProperties = jsonschema.Ptr(1)
	s.DependencySchemas = map[string]*jsonschema.Schema{}
	for _, form := range s.PropertyOrder {
		if form == "podSelector" || form == "namespaceSelector" {
			continue
		}
		s.DependencySchemas[form] = &jsonschema.Schema{MaxProperties: jsonschema.Ptr(1)}
	}
}

// fieldComments reads the comments of package policy's types and fields from its source.
func fieldComments(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../*.go")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			decl, ok := n.(*ast.GenDecl)
			if !ok || decl.Tok != token.TYPE {
				return true
			}
			spec := decl.Specs[0].(*ast.TypeSpec)
			out[spec.Name.Name] = oneLine(decl.Doc.Text())
			if s, ok := spec.Type.(*ast.StructType); ok {
				for _, field := range s.Fields.List {
					if field.Tag == nil {
						continue
					}
					name, _, _ := strings.Cut(reflect.StructTag(strings.Trim(field.Tag.Value, "`")).Get("json"), ",")
					out[spec.Name.Name+"."+name] = oneLine(field.Doc.Text() + field.Comment.Text())
				}
			}
			return true
		})
	}
	return out
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// The types whose fields Kubernetes describes itself.
var _ = []any{metav1.LabelSelector{}, networkingv1.IPBlock{}}
