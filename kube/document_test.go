package kube

import (
	"strings"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// TestItemsStandAlone: a policy that is an item of a list is handed on with what its list says of it,
// and with what its aliases stand for.
func TestItemsStandAlone(t *testing.T) {
	inv, err := ParseManifests("in.yaml", []byte(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicyList
items:
- metadata: {name: a, namespace: x}
  spec: &spec
    podSelector: {}
    ingress: [{ports: &ports [{port: 80}]}]
- metadata: {name: b, namespace: x}
  spec: *spec
---
apiVersion: v1
kind: List
items:
- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: c, labels: &l {app: c}}, spec: {podSelector: {matchLabels: *l}}}
- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: d}, spec: {podSelector: {matchLabels: *l}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range inv.Policies {
		list, err := policy.Parse(d.File, []byte(d.Text))
		if err != nil || len(list) != 1 {
			t.Fatalf("%s: %v, %d policies\n%s", d.Name, err, len(list), d.Text)
		}
		got = append(got, list[0].Key().String())
	}
	if want := "NetworkPolicy x/a, NetworkPolicy x/b, NetworkPolicy default/c, NetworkPolicy default/d"; strings.Join(got, ", ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// TestItemsAreBounded: aliases that stand for more than they look like end in an error.
func TestItemsAreBounded(t *testing.T) {
	text := "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, labels: {a: &a [x, x, x, x, x, x, x, x, x, x]"
	for c := 'b'; c <= 'h'; c++ {
		text += ", " + string(c) + ": &" + string(c) + " [" + strings.TrimSuffix(strings.Repeat("*"+string(c-1)+", ", 10), ", ") + "]"
	}
	_, err := ParseManifests("in.yaml", []byte(text+"}}}\n"))
	if err == nil || !strings.Contains(err.Error(), "with all aliases expanded") {
		t.Errorf("got %v", err)
	}
}
