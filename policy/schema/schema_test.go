package schema

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"sigs.k8s.io/yaml"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

func resolved(t *testing.T) *jsonschema.Resolved {
	t.Helper()
	s := &jsonschema.Schema{}
	if err := json.Unmarshal(Policy(), s); err != nil {
		t.Fatal(err)
	}
	r, err := s.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// validate holds a document against the schema, as an editor would.
func validate(t *testing.T, r *jsonschema.Resolved, text string) error {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return r.Validate(v)
}

const head = "apiVersion: bulkhead.dev/v1alpha1\nkind: Policy\nmetadata: {name: a, namespace: shop}\n"

// TestGood: what the parser takes, the schema takes.
func TestGood(t *testing.T) {
	r := resolved(t)
	for _, spec := range []string{
		`{podSelector: {}}`,
		`{mode: shadow, priority: 1, severity: high, reason: why, onDeny: Reject, podSelector: {matchLabels: {a: b}, matchExpressions: [{key: a, operator: In, values: [b]}]}}`,
		`{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}`,
		`{podSelector: {}, ingress: [{name: x, action: Deny, severity: low, reason: because, from: [{podSelector: {}, namespaceSelector: {}}, {ipBlock: {cidr: "::/0", except: ["fd00::/8"]}}, {network: office}, {service: {name: a, namespace: b}}]}]}`,
		`{podSelector: {}, egress: [{expires: "2026-12-31", to: [{dnsName: "*.example.com"}, {dnsName: example.com.}]}, {expires: "2026-12-31T18:00:00+01:00"}]}`,
		`{podSelector: {}, ingress: [{ports: [{}, {port: 80}, {port: http}, {protocol: UDP, port: 1, endPort: 65535}, {protocol: ICMP, port: 0}]}]}`,
	} {
		text := head + "spec: " + spec + "\n"
		if _, err := policy.Parse("x", []byte(text)); err != nil {
			t.Errorf("the parser refuses %s: %v", spec, err)
		}
		if err := validate(t, r, text); err != nil {
			t.Errorf("%s: %v", spec, err)
		}
	}
	files, err := filepath.Glob("../../examples/policies/native-*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no examples", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(t, r, string(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBad: both refuse what is wrong, unknown fields at every place first of all.
func TestBad(t *testing.T) {
	r := resolved(t)
	bad := []string{
		`{podSelector: {}, mode: off}`, `{podSelector: {}, priority: 0}`, `{podSelector: {}, priority: 1001}`, `{podSelector: {}, severity: severe}`, `{podSelector: {}, onDeny: reject}`,
		`{podSelector: {}, policyTypes: [Both]}`, `{podSelector: {matchLabels: {a: 1}}}`, `{podSelector: {matchExpressions: [{key: a, operator: Is}]}}`,
		`{podSelector: {}, ingress: {}}`, `{podSelector: {}, ingress: [{action: Pass}]}`, `{podSelector: {}, ingress: [{expires: tomorrow}]}`,
		`{podSelector: {}, ingress: [{from: [{}]}]}`, `{podSelector: {}, ingress: [{from: [{network: world, podSelector: {}}]}]}`,
		`{podSelector: {}, ingress: [{from: [{dnsName: example.com}]}]}`, `{podSelector: {}, egress: [{to: [{dnsName: com}]}]}`,
		`{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.1}}]}]}`, `{podSelector: {}, egress: [{to: [{service: {namespace: a}}]}]}`,
		`{podSelector: {}, ingress: [{ports: [{port: 70000}]}]}`, `{podSelector: {}, ingress: [{ports: [{endPort: 5}]}]}`, `{podSelector: {}, ingress: [{ports: [{protocol: tcp}]}]}`,
	}
	whole := `{podSelector: {matchExpressions: [{key: a, operator: Exists}]}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}, {service: {name: a}}], ports: [{port: 1}]}], egress: [{to: [{dnsName: a.b}]}]}`
	for i := range whole {
		if whole[i] == '{' {
			bad = append(bad, whole[:i+1]+"surprise: 1, "+whole[i+1:])
		}
	}
	for _, spec := range bad {
		text := head + "spec: " + spec + "\n"
		if _, err := policy.Parse("x", []byte(text)); err == nil {
			t.Errorf("the parser takes %s", spec)
		}
		if err := validate(t, r, text); err == nil {
			t.Errorf("the schema takes %s", spec)
		}
	}
	for _, text := range []string{
		strings.Replace(head, "Policy", "Polcy", 1) + "spec: {podSelector: {}}", strings.Replace(head, "v1alpha1", "v1", 1) + "spec: {podSelector: {}}",
		strings.Replace(head, "name: a,", "", 1) + "spec: {podSelector: {}}", strings.Replace(head, "name: a", "name: A_b", 1) + "spec: {podSelector: {}}", head + "spec: {podSelector: {}}\nstatus: {}",
	} {
		if _, err := policy.Parse("x", []byte(text)); err == nil {
			t.Errorf("the parser takes %s", text)
		}
		if err := validate(t, r, text); err == nil {
			t.Errorf("the schema takes %s", text)
		}
	}
}
