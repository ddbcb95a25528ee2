package policy

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite the goldens under testdata")

// TestParseErrors: each archive is a bad file, in.yaml, and what Parse says of it, want.
func TestParseErrors(t *testing.T) {
	files, err := filepath.Glob("testdata/parse/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(f)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse("in.yaml", ar.Files[0].Data)
			got := ""
			if err != nil {
				got = err.Error() + "\n"
			}
			if *update {
				ar.Files = append(ar.Files[:1], txtar.File{Name: "want", Data: []byte(got)})
				if err := os.WriteFile(f, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(ar.Files[1].Data), got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if got == "" {
				t.Error("accepted")
			}
		})
	}
}

// TestPublished: policies as shops publish them are read unchanged.
func TestPublished(t *testing.T) {
	for file, count := range map[string]int{"online-boutique": 13, "sock-shop": 13} {
		data, err := os.ReadFile("testdata/" + file + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		list, err := Parse(file+".yaml", data)
		if err != nil || len(list) != count {
			t.Fatalf("%s: %d policies, %v", file, len(list), err)
		}
		set, err := NewSet(list...)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range set.Policies() {
			roundTrip(t, *p)
		}
	}
}

// roundTrip writes a policy and reads it again.
func roundTrip(t *testing.T, p Policy) {
	t.Helper()
	text, err := Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse("again.yaml", text)
	if err != nil || len(again) != 1 {
		t.Fatalf("%v\n%s", err, text)
	}
	if !same(&p, &again[0]) || p.Key() != again[0].Key() {
		t.Fatalf("%+v\nbecame\n%+v\nby\n%s", p, again[0], text)
	}
	text2, err := Marshal(withComments(again[0], p))
	if err != nil || string(text2) != string(text) {
		t.Fatalf("not stable: %v\n%s\n%s", err, text, text2)
	}
}

// withComments puts b's comments on a, since Parse drops them.
func withComments(a, b Policy) Policy {
	a.Comment = b.Comment
	for i := range a.Spec.Ingress {
		a.Spec.Ingress[i].Comment = b.Spec.Ingress[i].Comment
	}
	for i := range a.Spec.Egress {
		a.Spec.Egress[i].Comment = b.Spec.Egress[i].Comment
	}
	return a
}

func TestRandomRoundTrip(t *testing.T) {
	d := newDice(t)
	for i := range 200 {
		p := d.policy(i)
		p.Labels, p.Annotations = d.labels(), d.labels()
		p.Comment = []string{"a\nb: {", "\x00#\u2028- x", "*y"}
		for j := range p.Spec.Ingress {
			p.Spec.Ingress[j].Comment = []string{"seen 3 times", "- {}\n- {}"}
		}
		roundTrip(t, p)
	}
}

func TestMarshal(t *testing.T) {
	list, err := Parse("in.yaml", []byte(`{apiVersion: bulkhead.dev/v1alpha1, kind: Policy, metadata: {name: cart, namespace: shop, labels: {enabled: "yes", n: "1"}},
spec: {podSelector: {matchLabels: {app: cart}, matchExpressions: [{key: v, operator: In, values: ["1", b]}]}, policyTypes: [Ingress, Egress],
ingress: [{from: [{podSelector: {}, namespaceSelector: {matchLabels: {team: web}}}], ports: [{port: 8080}, {protocol: UDP, port: 8000, endPort: 8010}]}, {}],
egress: [{to: [{network: world}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{protocol: ICMP, port: 8}, {port: http}]}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	p := list[0]
	p.Comment = []string{"Learned."}
	p.Spec.Ingress[0].Comment = []string{"seen 12 times from shop/web-1", "second line"}
	p.Spec.Ingress[1].Comment = []string{"everybody"}
	got, err := Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	want := `# Learned.
apiVersion: bulkhead.dev/v1alpha1
kind: Policy
metadata:
  name: cart
  namespace: shop
  labels:
    enabled: "yes"
    "n": "1"
spec:
  podSelector:
    matchLabels:
      app: cart
    matchExpressions:
    - key: v
      operator: In
      values: ["1", b]
  policyTypes: [Ingress, Egress]
  ingress:
  # seen 12 times from shop/web-1
  # second line
  - from:
    - podSelector: {}
      namespaceSelector:
        matchLabels:
          team: web
    ports:
    - protocol: TCP
      port: 8080
    - protocol: UDP
      port: 8000
      endPort: 8010
  # everybody
  - {}
  egress:
  - to:
    - network: world
    - ipBlock:
        cidr: 10.0.0.0/8
        except:
        - 10.1.0.0/16
    ports:
    - protocol: ICMP
      port: 8
    - protocol: TCP
      port: http
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestBounds: what is too big is refused, quickly.
func TestBounds(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'j'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 9), ","))
	}
	head := "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x}\n"
	self := head + "spec: &s\n  podSelector: {}\n  ingress: [*s]\n"
	deep := head + "spec: " + strings.Repeat("[", 20000)
	merges := head + "spec:\n  <<: &m {<<: *m}\n"
	for name, c := range map[string]struct{ in, want string }{
		"size":     {strings.Repeat("#", maxFile+1), "bound 16777216"},
		"document": {"a: " + strings.Repeat("x", maxDocument), "document of"},
		"aliases": {head + strings.ReplaceAll("spec:\n  podSelector: {}\n  ingress:\n  - from: [{podSelector: &p {matchExpressions: &m [@]}}]\n", "@",
			strings.TrimSuffix(strings.Repeat("{key: a, operator: In, values: [a,b,c,d,e,f,g,h]},", 4000), ",")) +
			strings.Repeat("  - from: [{podSelector: *p}]\n", 200), "more than 500000 values"},
		"bomb": {"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x}\n" + bomb, `unknown field "j"`},
		"self": {self, "want a list"}, "deep": {deep, "not YAML"}, "merges": {merges, "in.yaml"},
		"binary": {"\x00\x01\x02", "not YAML"},
	} {
		_, err := Parse("in.yaml", []byte(c.in))
		if name == "self" {
			if err == nil {
				t.Errorf("%s: accepted", name)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %.300v, want ...%s...", name, err, c.want)
		}
		if err != nil && len(err.Error()) > 100_000 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
}

func TestAccepted(t *testing.T) {
	for name, in := range map[string]string{
		"empty file":       "",
		"empty documents":  "---\n---\n# nothing\n---\n",
		"host bits":        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x}\nspec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.1.2.3/8}}]}]}\n",
		"no spec":          "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x}\n",
		"null lists":       "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x, namespace: null}\nspec:\n  podSelector:\n  ingress:\n  - from:\n    ports:\n",
		"exported":         "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: x\n  creationTimestamp: \"2026-01-02T03:04:05Z\"\n  generation: 2\n  resourceVersion: \"12\"\n  uid: abc\n  managedFields:\n  - manager: kubectl\n    operation: Update\n    time: 2026-01-02T03:04:05Z\n    fieldsType: FieldsV1\n    fieldsV1: {\"f:spec\": {}}\nspec:\n  podSelector: {}\nstatus: {}\n",
		"list":             "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: \"\"}\nitems:\n- apiVersion: networking.k8s.io/v1\n  kind: NetworkPolicy\n  metadata: {name: x}\n  spec: {podSelector: {}}\n",
		"anchors":          "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x}\nspec:\n  podSelector: &s {matchLabels: &l {app: a}}\n  ingress:\n  - from: [{podSelector: *s}, {podSelector: {matchLabels: {<<: *l, b: c}}}]\n",
		"json":             `{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"x"},"spec":{"podSelector":{}}}`,
		"windows line end": "apiVersion: networking.k8s.io/v1\r\nkind: NetworkPolicy\r\nmetadata: {name: x}\r\n---\r\n",
	} {
		if list, err := Parse("in.yaml", []byte(in)); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if _, err := NewSet(list...); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/parse/*.txtar")
	for _, name := range files {
		if ar, err := txtar.ParseFile(name); err == nil {
			f.Add(ar.Files[0].Data)
		}
	}
	for _, name := range []string{"sock-shop", "online-boutique"} {
		if data, err := os.ReadFile("testdata/" + name + ".yaml"); err == nil {
			f.Add(data[:2000])
		}
	}
	for _, c := range tiers {
		f.Add([]byte(c.policies))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := Parse("in.yaml", data)
		if err != nil {
			for _, line := range strings.Split(err.Error(), "\n") {
				if !strings.HasPrefix(line, "in.yaml:") {
					t.Fatalf("%q: no place", line)
				}
			}
			return
		}
		// What is accepted compiles, and survives being written and read.
		if _, err := NewSet(list...); err != nil {
			t.Fatal(err)
		}
		for _, p := range list {
			if at := p.At("spec.ingress[0].from[0].ipBlock.cidr"); !strings.HasPrefix(at, "in.yaml:") {
				t.Fatalf("at %q", at)
			}
			if p.Kind == KindAdminNetworkPolicy || p.Kind == KindBaselineAdminNetworkPolicy {
				continue // read, not written
			}
			roundTrip(t, p)
		}
	})
}
