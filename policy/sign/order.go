package sign

import (
	"fmt"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// The kinds of orders.
const (
	KindRemoval = "Removal"
	KindMode    = "Mode"
)

// Order is a document that is no policy and changes what holds: it takes a policy away, or sets a mode.
// Where signatures are asked for they are asked of these too, and what is gone stays gone.
type Order struct {
	Kind      string // KindRemoval or KindMode
	Namespace string // of the policy or the service; empty: a cluster-wide policy, or with "*" every service
	Name      string // of the policy or the service
	Of        string // Removal: the policy's kind
	Shadow    bool   // Removal: of the policy's shadow
	Mode      string // Mode: learn, alert, enforce, or [DefaultMode]
}

// DefaultMode is what takes a service's own mode away.
const DefaultMode = "default"

// Text writes the order as a document.
func (o Order) Text() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: %s\nkind: %s\nmetadata:\n", policy.NativeVersion, o.Kind)
	if o.Namespace != "" {
		fmt.Fprintf(&b, "  namespace: %q\n", o.Namespace)
	}
	fmt.Fprintf(&b, "  name: %q\nspec:\n", o.Name)
	if o.Kind == KindMode {
		fmt.Fprintf(&b, "  mode: %q\n", o.Mode)
		return []byte(b.String())
	}
	fmt.Fprintf(&b, "  kind: %q\n", o.Of)
	if o.Shadow {
		b.WriteString("  shadow: true\n")
	}
	return []byte(b.String())
}

// ReadOrder reads an order; nil: the document is none.
func ReadOrder(text []byte) (*Order, error) {
	d, err := Open(text)
	if err != nil {
		return nil, err
	}
	return d.Order()
}

// Order reads the document as an order; nil: it is none. It is strict: a field that it does not know is
// an error.
func (d *Document) Order() (*Order, error) {
	if d.content["apiVersion"] != policy.NativeVersion || d.kind != KindRemoval && d.kind != KindMode {
		return nil, nil
	}
	o := &Order{Kind: d.kind}
	f := fields{of: d.kind}
	meta := f.mapping(d.content, "metadata")
	spec := f.mapping(d.content, "spec")
	f.only("", d.content, "apiVersion", "kind", "metadata", "spec")
	f.only("metadata.", meta, "name", "namespace", "annotations", "labels")
	o.Name, o.Namespace = f.text("metadata.", meta, "name"), f.text("metadata.", meta, "namespace")
	if o.Kind == KindMode {
		f.only("spec.", spec, "mode")
		o.Mode = f.text("spec.", spec, "mode")
		if _, err := policy.ParseMode(o.Mode); err != nil && o.Mode != DefaultMode {
			f.bad("spec.mode %q: want learn, alert, enforce or %s", o.Mode, DefaultMode)
		}
	} else {
		f.only("spec.", spec, "kind", "shadow")
		o.Of = f.text("spec.", spec, "kind")
		o.Shadow, _ = spec["shadow"].(bool)
		if o.Of == "" {
			f.bad("spec.kind: want the kind of the policy that goes")
		}
	}
	if o.Name == "" {
		f.bad("metadata.name: missing")
	}
	return o, f.err
}

// fields reads an order's fields and keeps the first error.
type fields struct {
	of  string
	err error
}

func (f *fields) bad(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf("%s: %s", f.of, fmt.Sprintf(format, args...))
	}
}

func (f *fields) mapping(in map[string]any, key string) map[string]any {
	m, ok := in[key].(map[string]any)
	if !ok {
		f.bad("%s: want keys with values", key)
	}
	return m
}

func (f *fields) text(path string, in map[string]any, key string) string {
	s, ok := in[key].(string)
	if in[key] != nil && !ok {
		f.bad("%s%s: want a string", path, key)
	}
	return s
}

func (f *fields) only(path string, in map[string]any, known ...string) {
	for key := range in {
		found := false
		for _, k := range known {
			found = found || k == key
		}
		if !found {
			f.bad("%s%.40s: unknown field; known are %s", path, key, strings.Join(known, ", "))
		}
	}
}
