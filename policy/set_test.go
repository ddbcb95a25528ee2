package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func parsed(t testing.TB, text string) []Policy {
	t.Helper()
	list, err := Parse("x.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func setOf(t testing.TB, text string) *Set {
	t.Helper()
	s, err := NewSet(parsed(t, text)...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// netpol writes short documents: kind, name and a flow-style spec.
func netpol(kind, name, spec string) string {
	version := KubernetesVersion
	if kind == KindPolicy {
		version = NativeVersion
	}
	return "---\napiVersion: " + version + "\nkind: " + kind + "\nmetadata: {name: " + name + "}\nspec: " + spec + "\n"
}

const (
	denyAll   = "{podSelector: {}, policyTypes: [Ingress, Egress]}"
	apiToDB   = "{podSelector: {matchLabels: {role: db}}, ingress: [{from: [{podSelector: {matchLabels: {role: api}}}], ports: [{port: sql}]}]}"
	apiEgress = "{podSelector: {matchLabels: {role: api}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {role: db}}}], ports: [{port: 5432}]}]}"
)

// TestReasons: both ends are judged, policies add up, and the way to the verdict can be read.
func TestReasons(t *testing.T) {
	v := town()
	s := setOf(t, netpol(KindNetworkPolicy, "deny", denyAll)+netpol(KindPolicy, "db", apiToDB)+netpol(KindPolicy, "api", apiEgress))
	for question, want := range map[string]string{
		"default/api > default/db TCP/5432": `
egress of this end is isolated by default/api, default/deny
egress: allow: default/api egress[0] allows default/db on TCP/5432
ingress of this end is isolated by default/db, default/deny
ingress: allow: default/db ingress[0] allows default/api on TCP/5432`,
		"default/api > default/db TCP/80": `
egress of this end is isolated by default/api, default/deny
egress: deny: egress of default/api is isolated by default/api, default/deny and no rule allows to default/db on TCP/80; nearest: default/api egress[0] admits that peer on TCP/5432 only
ingress of this end is isolated by default/db, default/deny
ingress: deny: ingress of default/db is isolated by default/db, default/deny and no rule allows from default/api on TCP/80; nearest: default/db ingress[0] admits that peer on TCP/sql only`,
		"web/front > default/db TCP/5432": `
egress: allow: no policy isolates egress of web/front: everything is allowed
ingress of this end is isolated by default/db, default/deny
ingress: deny: ingress of default/db is isolated by default/db, default/deny and no rule allows from web/front on TCP/5432; nearest: default/db ingress[0] opens that port from pods role=api only`,
		"203.0.113.9 > default/bare TCP/5432": `
egress: allow: 203.0.113.9 is no workload: no policy can select it
ingress of this end is isolated by default/deny
ingress: deny: ingress of default/bare is isolated by default/deny, which has no ingress rule: nothing is allowed`,
		"default/api > 10.96.0.7 TCP/80": `
egress of this end is isolated by default/api, default/deny
egress: allow: service default/db, all workloads behind it are allowed: default/api egress[0] allows default/db on TCP/5432
ingress of this end is isolated by default/db, default/deny
ingress: allow: behind service default/db: default/db ingress[0] allows default/api on TCP/5432`,
		"default/bare > 10.96.0.7 TCP/80": `
egress of this end is isolated by default/deny
egress: deny: service default/db: a workload behind it is not allowed: egress of default/bare is isolated by default/deny, which has no egress rule: nothing is allowed
ingress of this end is isolated by default/db, default/deny
ingress: deny: behind service default/db: ingress of default/db is isolated by default/db, default/deny and no rule allows from default/bare on TCP/5432; nearest: default/db ingress[0] opens that port from pods role=api only`,
		"node > default/db TCP/1": `
egress: allow: node is no workload: no policy can select it
ingress of this end is isolated by default/db, default/deny
ingress: allow: built-in node: the node may always talk to its own workloads`,
	} {
		got := strings.Join(s.Evaluate(v, connection(t, v, question)).Reasons(), "\n")
		if diff := cmp.Diff(strings.TrimSpace(want), got); diff != "" {
			t.Errorf("%s: -want +got\n%s", question, diff)
		}
	}
}

// TestEntries: what one workload's namespace must hold, readable aloud.
func TestEntries(t *testing.T) {
	v := town()
	for name, c := range map[string]struct{ policies, egress, ingress string }{
		"open": {netpol(KindPolicy, "other", "{podSelector: {matchLabels: {role: nobody}}}"), "open", "open"},
		"deny": {netpol(KindPolicy, "deny", denyAll), `
10.96.0.10/32 TCP 53-53 built-in dns
10.96.0.10/32 UDP 53-53 built-in dns`, `
10.0.0.1/32 any 0-0 built-in node
192.168.1.10/32 any 0-0 built-in node
fe80::1/128 any 0-0 built-in node`},
		"pods, a Service in front of one, names at each peer": {netpol(KindPolicy, "api", `{podSelector: {matchLabels: {role: api}}, policyTypes: [Egress],
  egress: [{to: [{podSelector: {matchLabels: {role: db}}}], ports: [{port: 5432}, {port: 5433}]}, {ports: [{port: http}]}]}`), `
10.0.0.2/32 TCP 5432-5432 default/api egress[0]
10.0.0.2/32 TCP 5433-5433 default/api egress[0]
10.0.1.2/32 TCP 80-80 default/api egress[1]
10.0.1.3/32 TCP 8081-8081 default/api egress[1]
10.96.0.7/32 TCP 80-80 default/api egress[0] (service default/db)
10.96.0.10/32 TCP 53-53 built-in dns
10.96.0.10/32 UDP 53-53 built-in dns
fd00::2/128 TCP 5432-5432 default/api egress[0]
fd00::2/128 TCP 5433-5433 default/api egress[0]
fd00:0:0:1::2/128 TCP 80-80 default/api egress[1]`, "open"},
		"blocks in blocks; what a wider one allows is left out of the narrower": {netpol(KindPolicy, "api", `{podSelector: {matchLabels: {role: api}},
  ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 80, endPort: 90}, {port: 443}]},
            {from: [{ipBlock: {cidr: 10.0.0.0/16, except: [10.0.128.0/17]}}], ports: [{port: 85, endPort: 95}, {port: 443}]},
            {from: [{namespaceSelector: {}}], ports: [{port: 80}]}]}`), "open", `
10.0.0.0/8 TCP 80-90 default/api ingress[0]
10.0.0.0/8 TCP 443-443 default/api ingress[0]
10.0.0.0/17 TCP 91-95 default/api ingress[1]
10.0.0.1/32 any 0-0 built-in node
192.168.1.10/32 any 0-0 built-in node
fd00::2/128 TCP 80-80 default/api ingress[2]
fd00:0:0:1::2/128 TCP 80-80 default/api ingress[2]
fe80::1/128 any 0-0 built-in node`},
		"everything; the rest lies in it": {netpol(KindPolicy, "api", "{podSelector: {}, policyTypes: [Egress], egress: [{}, {to: [{podSelector: {}}], ports: [{port: 1}]}]}"), `
0.0.0.0/0 any 0-0 default/api egress[0]
::/0 any 0-0 default/api egress[0]`, "open"},
		"a block with every protocol in one with some ports": {netpol(KindPolicy, "api", `{podSelector: {matchLabels: {role: api}},
  ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/30}}], ports: [{port: 80}]}, {from: [{ipBlock: {cidr: 10.0.0.2/31}}]}]}`), "open", `
10.0.0.0/30 TCP 80-80 default/api ingress[0]
10.0.0.1/32 any 0-0 built-in node
10.0.0.2/31 0-5 0-0 default/api ingress[1]
10.0.0.2/31 TCP 0-79 default/api ingress[1]
10.0.0.2/31 TCP 81-65535 default/api ingress[1]
10.0.0.2/31 7-255 0-0 default/api ingress[1]
192.168.1.10/32 any 0-0 built-in node
fe80::1/128 any 0-0 built-in node`},
	} {
		sides := setOf(t, c.policies).Entries(v, v.Find("default", "api"))
		for _, x := range []struct {
			side Side
			want string
		}{{sides.Egress, c.egress}, {sides.Ingress, c.ingress}} {
			got := strings.ReplaceAll(strings.ReplaceAll(dump(x.side), "\n  ", "\n"), "  ", " ")
			if !x.side.Isolated {
				got = "open"
			}
			if diff := cmp.Diff(strings.TrimSpace(x.want), strings.TrimSpace(got)); diff != "" {
				t.Errorf("%s: -want +got\n%s", name, diff)
			}
		}
	}
}

func TestPodBlocks(t *testing.T) {
	d := newDice(t)
	for range 50 { // with pod blocks given, every pod of every namespace is the blocks
		v := d.cluster()
		s := setOf(t, netpol(KindPolicy, "x", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}"))
		for _, w := range v.In("default") {
			wellFormed(t, s.Entries(v, w).Ingress)
		}
	}
}

func TestNewSetErrors(t *testing.T) {
	list := parsed(t, netpol(KindPolicy, "a", denyAll))
	list = append(list, parsed(t, netpol(KindPolicy, "a", denyAll))...)
	bad := list[0]
	bad.Name, bad.Spec.Ingress = "b", []Rule{{Peers: []Peer{{}}}}
	_, err := NewSet(append(list, bad)...)
	want := `x.yaml:2: Policy default/a is defined already at x.yaml:2
x.yaml:2: Policy default/b: spec.ingress[0].from[0]: the peer is empty; want podSelector, namespaceSelector, ipBlock, network or service (for everybody leave the list of peers out)`
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if _, err := NewSet(list[0], Policy{Kind: KindNetworkPolicy, Namespace: "default", Name: "a"}); err != nil {
		t.Errorf("two kinds of one name: %v", err)
	}
}

func TestCompare(t *testing.T) {
	a := setOf(t, netpol(KindPolicy, "same", "{podSelector: {matchLabels: {a: b}}, ingress: [{from: [], ports: [{port: 1}, {protocol: TCP, port: 2}]}, {from: [{ipBlock: {cidr: 10.1.2.3/8, except: [10.1.0.0/16, 10.2.0.0/16]}}]}]}")+
		netpol(KindPolicy, "changed", denyAll)+netpol(KindPolicy, "removed", denyAll))
	b := setOf(t, netpol(KindPolicy, "same", "{podSelector: {matchExpressions: [{key: a, operator: In, values: [b]}]}, policyTypes: [Ingress], ingress: [{ports: [{protocol: TCP, port: 1, endPort: 1}, {port: 2}]}, {from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.2.0.0/16, 10.1.0.0/16]}}]}], egress: []}")+
		netpol(KindPolicy, "changed", "{podSelector: {}}")+netpol(KindNetworkPolicy, "removed", denyAll))
	want := Difference{
		Created: []Key{{KindNetworkPolicy, "default", "removed"}}, Changed: []Key{{KindPolicy, "default", "changed"}},
		Unchanged: []Key{{KindPolicy, "default", "same"}}, Removed: []Key{{KindPolicy, "default", "removed"}},
	}
	if diff := cmp.Diff(want, Compare(a, b)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	c, err := a.With(b.find(t, "changed"))
	if err != nil {
		t.Fatal(err)
	}
	if d := Compare(a, c.Without(Key{KindPolicy, "default", "removed"})); len(d.Changed) != 1 || len(d.Removed) != 1 || d.Empty() {
		t.Errorf("With and Without: %+v", d)
	}
	if a.Len() != 3 {
		t.Error("With changed the set that it was called on")
	}
}

func (s *Set) find(t *testing.T, name string) Policy {
	t.Helper()
	p := s.Find(Key{KindPolicy, "default", name})
	if p == nil {
		t.Fatal("no", name)
	}
	return *p
}
