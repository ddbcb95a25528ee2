package policy

import (
	"fmt"
	"strings"
	"testing"
)

// TestAt: a path of the one form is found at its line and column, whatever the kind and however the
// file is put together; what the document does not have is at the nearest part that it has.
func TestAt(t *testing.T) {
	const files = `# a comment
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: a}
spec:
  podSelector:
    matchLabels: {app.kubernetes.io/name: x}
  ingress:
  - from:
    - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}
    ports: [{port: 80}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: b}
spec:
  tier: Admin
  priority: 1
  subject:
    pods: {namespaceSelector: {matchLabels: {a: b}}, podSelector: {}}
  egress:
  - action: Accept
    to:
    - namespaces: {}
    - networks: [10.0.0.0/8, 192.0.2.0/24]
    - domainNames: [a.example.com]
    protocols:
    - tcp: {destinationPort: {number: 80}}
    - destinationNamedPort: dns
---
apiVersion: v1
kind: List
items:
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: c}
  spec:
    podSelector: {}
    policyTypes: [Ingress]
- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: d}, spec: {podSelector: {}, policyTypes: [Ingress]}}
`
	list, err := Parse("x.yaml", []byte(files))
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]*Policy{}
	for i := range list {
		by[list[i].Name] = &list[i]
	}
	lines := strings.Split(files, "\n")
	for _, c := range []struct{ policy, path, starts string }{
		{"a", "spec.ingress[0].from[0].ipBlock.cidr", "10.0.0.0/8, except"},
		{"a", "spec.ingress[0].from[0].ipBlock.except[0]", "10.1.0.0/16"},
		{"a", "spec.ingress[0].ports[0].port", "80}]"},
		{"a", "spec.podSelector.matchLabels[app.kubernetes.io/name]", "x}"},
		{"a", "spec.ingress[0].ports[0].endPort", "{port: 80}"},
		{"a", "spec.egress[3].to", "podSelector:"},
		{"b", "spec.podSelector", "{}}"},
		{"b", "spec.namespaceSelector.matchLabels[a]", "b}}"},
		{"b", "spec.egress[0].to[0].namespaceSelector", "{}"},
		{"b", "spec.egress[0].to[2].ipBlock.cidr", "192.0.2.0/24"},
		{"b", "spec.egress[0].to[3].dnsName", "a.example.com"},
		{"b", "spec.egress[0].ports[0].port", "80}}"},
		{"b", "spec.egress[0].ports[3].port", "dns"},
		{"b", "spec.priority", "1"},
		{"c", "spec.policyTypes[0]", "Ingress"},
	} {
		at := by[c.policy].At(c.path)
		var line, column int
		if _, err := fmt.Sscanf(at, "x.yaml:%d:%d", &line, &column); err != nil {
			t.Errorf("%s %s: at %q", c.policy, c.path, at)
			continue
		}
		if rest := lines[line-1][column-1:]; !strings.HasPrefix(rest, c.starts) {
			t.Errorf("%s %s: at %s, which is %q, want %q", c.policy, c.path, at, rest, c.starts)
		}
	}
	if at := by["d"].At("spec.policyTypes"); at != by["d"].Source || !strings.HasPrefix(by["d"].Text, anew) {
		t.Errorf("an item in flow style: at %q of %q", at, by["d"].Text)
	}
	if at := (&Policy{Kind: KindPolicy}).At("spec"); at != "" {
		t.Errorf("of no file: %q", at)
	}
}

// TestParseAmong: other kinds are passed over; what is meant to be a policy is held to its form.
func TestParseAmong(t *testing.T) {
	const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n---\n"
	list, err := ParseAmong("x", []byte(pod+netpol(KindNetworkPolicy, "a", "{podSelector: {}}")+"---\nfoo: bar\n---\napiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Service}]\n"))
	if err != nil || len(list) != 1 {
		t.Fatalf("%d policies, %v", len(list), err)
	}
	for text, want := range map[string]string{
		pod + "apiVersion: v1\nkind: NetworkPolicy\n":                          `x:5:13: apiVersion "v1" of a NetworkPolicy: want networking.k8s.io/v1`,
		pod + "apiVersion: networking.k8s.io/v1\nkind: NetworkPolcy\n":         `did you mean "NetworkPolicy"?`,
		pod + "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nspce: 1": `unknown field "spce"`,
	} {
		if _, err := ParseAmong("x", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := Parse("x", []byte(pod)); err == nil {
		t.Error("Parse takes a Pod")
	}
}

// TestSeats: under one key a file holds a policy in force and its shadow, and no two of either.
func TestSeats(t *testing.T) {
	one, shadow := netpol(KindPolicy, "a", "{podSelector: {}}"), netpol(KindPolicy, "a", "{mode: shadow, podSelector: {}}")
	if list, err := Parse("x", []byte(one+shadow)); err != nil || len(list) != 2 || list[0].Shadow || !list[1].Shadow {
		t.Errorf("%v", err)
	}
	for _, text := range []string{one + one, shadow + shadow} {
		if _, err := Parse("x", []byte(text)); err == nil || !strings.Contains(err.Error(), "defined already") {
			t.Errorf("%v", err)
		}
	}
}

// TestClusterRoundTrip: cluster-wide policies and the native fields are written as they were read.
func TestClusterRoundTrip(t *testing.T) {
	for _, c := range tiers {
		for _, p := range parsed(t, c.policies) {
			if p.Kind != KindAdminNetworkPolicy && p.Kind != KindBaselineAdminNetworkPolicy {
				roundTrip(t, p)
			} else if _, err := Marshal(p); err == nil {
				t.Errorf("%s is written", p.Kind)
			}
		}
	}
	for _, p := range parsed(t, netpol(KindPolicy, "x", `{mode: shadow, priority: 7, onDeny: Drop, severity: low, reason: "a: b", podSelector: {}, ingress: [{name: n, action: Deny, expires: 2030-01-02T03:04:05Z, severity: high, reason: r, from: [{service: {name: a, namespace: b}}, {service: {name: c}}]}], egress: [{to: [{dnsName: "*.example.com"}]}]}`)) {
		roundTrip(t, p)
	}
}

// TestReadingWarnings: what reading had to settle is told.
func TestReadingWarnings(t *testing.T) {
	for _, p := range parsed(t, netpol(KindNetworkPolicy, "x", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.1.2.3/8, except: [10.1.0.0/16]}}]}]}")) {
		if got := strings.Join(p.Warnings, "\n"); got != "ingress[0] peer 0: 10.1.2.3/8 has host bits behind its prefix; it is read as 10.0.0.0/8" {
			t.Errorf("%q", got)
		}
	}
}
