package suite

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Kind and version of a file of tests:
//
//	apiVersion: bulkhead.dev/v1alpha1
//	kind: PolicyTest
//	metadata: {name: shop}
//	tests:
//	- name: checkout pays            # optional
//	  client: shop/checkout          # or a list; see Cluster.Find
//	  server: shop/payment           # or a list
//	  port: TCP/50051                # or a list; TCP/grpc by name, ICMP/8, ICMP (echo)
//	  expect: allow                  # or deny
//	  because: orders are paid       # told when it fails
const (
	Kind    = "PolicyTest"
	Version = policy.NativeVersion
)

// What one file holds at most.
const (
	maxTests  = 100_000
	maxErrors = 100
	maxNames  = 256 // in one list of clients, servers or ports
)

// File is the tests of one document.
type File struct {
	Name  string // metadata.name, else the file's name
	Place string // "tests.yaml:1"
	Tests []Test
}

// Test is one expectation: for every client, server and port of it.
type Test struct {
	Name    string // for people; empty: what it says
	Clients []string
	Servers []string
	Ports   []Port
	Expect  policy.Verdict // Allow or Deny
	Because string
	Place   string // "tests.yaml:6:3"
}

// Port is a server's port as a test writes it.
type Port struct {
	Protocol identity.Protocol
	Number   uint16 // the type for ICMP
	Name     string // of a container port or of a Service's port, instead of Number
}

// String gives "TCP/80", "TCP/http", "ICMP/8".
func (p Port) String() string {
	if p.Name != "" {
		return p.Protocol.String() + "/" + p.Name
	}
	return fmt.Sprintf("%s/%d", p.Protocol, p.Number)
}

// String says what is expected.
func (t *Test) String() string {
	if t.Name != "" {
		return t.Name
	}
	ports := make([]string, len(t.Ports))
	for i, p := range t.Ports {
		ports[i] = p.String()
	}
	return fmt.Sprintf("%s → %s %s: %s", strings.Join(t.Clients, ", "), strings.Join(t.Servers, ", "), strings.Join(ports, ", "), t.Expect)
}

// ParsePort reads "TCP/80", "UDP/dns", "ICMP/8", and "ICMP" for an echo request.
func ParsePort(s string) (Port, error) {
	protocol, port, found := strings.Cut(s, "/")
	p, err := identity.ParseProtocol(protocol)
	switch {
	case err != nil || !p.HasPorts() && !p.IsICMP():
		return Port{}, fmt.Errorf("port %q: want PROTOCOL/PORT with TCP, UDP, SCTP or ICMP, for example TCP/80", s)
	case !found && p == identity.ICMPv6:
		return Port{Protocol: p, Number: echo6}, nil
	case !found && p.IsICMP():
		return Port{Protocol: p, Number: echo4}, nil
	case port == "":
		return Port{}, fmt.Errorf("port %q: want PROTOCOL/PORT, for example TCP/80", s)
	}
	n, err := strconv.ParseInt(port, 10, 64)
	low, high := int64(1), int64(65535)
	if p.IsICMP() {
		low, high = 0, 255
	}
	switch {
	case err != nil && p.HasPorts():
		return Port{Protocol: p, Name: port}, nil
	case err != nil || n < low || n > high:
		return Port{}, fmt.Errorf("port %q: %s is no number from %d to %d", s, port, low, high)
	}
	return Port{Protocol: p, Number: uint16(n)}, nil
}

// Parse reads the tests of a file of YAML documents; documents of other kinds are passed over. It is
// strict: an unknown field, a wrong type, a missing field are errors, all of them joined, each
// "name:line:column: what"; then there are no tests.
func Parse(name string, data []byte) ([]File, error) {
	r := &reader{name: name}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var files []File
	for {
		var root yaml.Node
		err := dec.Decode(&root)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			r.errs = append(r.errs, fmt.Errorf("%s:%s", name, syntax(err)))
			break
		}
		if len(root.Content) == 0 || root.Content[0].Kind != yaml.MappingNode {
			continue
		}
		kind := value(root.Content[0], "kind")
		if near := kind != nil && kind.Value != Kind && kind.Value != "PolicyList" && policy.Nearest(kind.Value, []string{Kind}) != ""; near {
			r.bad(kind, "kind %q; did you mean %q?", kind.Value, Kind)
		}
		if kind == nil || kind.Value != Kind {
			continue
		}
		files = append(files, r.file(root.Content[0]))
	}
	if len(r.errs) > 0 {
		return nil, errors.Join(r.errs...)
	}
	return files, nil
}

// syntax turns the YAML library's "yaml: line 3: what" into "3:1: what".
func syntax(err error) string {
	what := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if n, _ := fmt.Sscanf(what, "line %d: ", &line); n == 1 {
		_, what, _ = strings.Cut(what, ": ")
	}
	return fmt.Sprintf("%d:1: not YAML: %s", line, what)
}

// value finds a field of a mapping.
func value(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// reader collects what is wrong with a file.
type reader struct {
	name  string
	errs  []error
	tests int
}

func (r *reader) place(n *yaml.Node) string { return fmt.Sprintf("%s:%d:%d", r.name, n.Line, n.Column) }

func (r *reader) bad(n *yaml.Node, format string, args ...any) {
	switch len(r.errs) {
	case maxErrors:
		r.errs = append(r.errs, fmt.Errorf("%s: and more errors", r.name))
	default:
		if len(r.errs) < maxErrors {
			r.errs = append(r.errs, fmt.Errorf("%s: %s", r.place(n), fmt.Sprintf(format, args...)))
		}
	}
}

// fields calls do for each field of a mapping, and refuses fields that are not known or come twice.
func (r *reader) fields(n *yaml.Node, known []string, do func(key string, v *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		r.bad(n, "want a mapping with %s", strings.Join(known, ", "))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, v := n.Content[i], n.Content[i+1]
		switch {
		case seen[key.Value]:
			r.bad(key, "%s is given twice", key.Value)
		case !slices.Contains(known, key.Value):
			hint := ""
			if near := policy.Nearest(key.Value, known); near != "" {
				hint = fmt.Sprintf("; did you mean %q?", near)
			}
			r.bad(key, "unknown field %q; want one of %s%s", key.Value, strings.Join(known, ", "), hint)
		default:
			do(key.Value, v)
		}
		seen[key.Value] = true
	}
}

func (r *reader) text(n *yaml.Node, field string) string {
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
		r.bad(n, "%s: want a string", field)
		return ""
	}
	return n.Value
}

// texts takes one string or a list of them.
func (r *reader) texts(n *yaml.Node, field string) []string {
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		items = n.Content
	}
	if len(items) == 0 {
		r.bad(n, "%s: want at least one", field)
	}
	if len(items) > maxNames {
		r.bad(n, "%s: %d items, bound %d", field, len(items), maxNames)
		return nil
	}
	var out []string
	for _, item := range items {
		if item.Kind == yaml.ScalarNode && item.Value == "" {
			r.bad(item, "%s is empty", field)
			continue
		}
		out = append(out, r.text(item, field))
	}
	return out
}

func (r *reader) file(n *yaml.Node) File {
	f := File{Name: r.name, Place: fmt.Sprintf("%s:%d", r.name, n.Line)}
	version := ""
	r.fields(n, []string{"apiVersion", "kind", "metadata", "tests"}, func(key string, v *yaml.Node) {
		switch key {
		case "apiVersion":
			if version = r.text(v, key); version != Version {
				r.bad(v, "apiVersion %q of a %s: want %s", version, Kind, Version)
			}
		case "metadata":
			r.fields(v, []string{"name", "labels", "annotations"}, func(key string, v *yaml.Node) {
				if key == "name" {
					f.Name = r.text(v, "metadata.name")
				}
			})
		case "tests":
			if v.Kind != yaml.SequenceNode {
				r.bad(v, "tests: want a list")
				return
			}
			for _, item := range v.Content {
				if r.tests++; r.tests > maxTests {
					r.bad(item, "more than %d tests in one file", maxTests)
					return
				}
				f.Tests = append(f.Tests, r.test(item))
			}
		}
	})
	if version == "" {
		r.bad(n, "apiVersion is missing; want %s", Version)
	}
	return f
}

func (r *reader) test(n *yaml.Node) Test {
	t := Test{Place: r.place(n)}
	var expected bool
	r.fields(n, []string{"name", "client", "server", "port", "expect", "because"}, func(key string, v *yaml.Node) {
		switch key {
		case "name":
			t.Name = r.text(v, key)
		case "client":
			t.Clients = r.texts(v, key)
		case "server":
			t.Servers = r.texts(v, key)
		case "port":
			t.Ports = r.ports(v)
		case "because":
			t.Because = r.text(v, key)
		case "expect":
			expected = true
			switch word := r.text(v, key); word {
			case "allow":
				t.Expect = policy.Allow
			case "deny":
				t.Expect = policy.Deny
			default:
				r.bad(v, "expect %q: want allow or deny", word)
			}
		}
	})
	if n.Kind != yaml.MappingNode {
		return t
	}
	for _, field := range []struct {
		name  string
		there bool
	}{{"client", value(n, "client") != nil}, {"server", value(n, "server") != nil}, {"port", value(n, "port") != nil}, {"expect", expected}} {
		if !field.there {
			r.bad(n, "%s is missing", field.name)
		}
	}
	return t
}

func (r *reader) ports(n *yaml.Node) []Port {
	var out []Port
	for _, s := range r.texts(n, "port") {
		p, err := ParsePort(s)
		if err != nil {
			r.bad(n, "%v", err)
			continue
		}
		out = append(out, p)
	}
	return out
}
