package policy

import (
	"strings"
	"testing"
	"time"
)

// cnp writes a short ClusterNetworkPolicy: its name, and a flow-style spec.
func cnp(name, spec string) string {
	return "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: " + name + "}\nspec: " + spec + "\n"
}

// tiers: what the cluster-wide API says, policies of all tiers, and what becomes of connections.
var tiers = []struct{ sentence, policies, want string }{
	{
		"If Admin tier has made a final decision (Accept or Deny) on a connection, then no further evaluation is done",
		cnp("a", "{tier: Admin, priority: 5, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: mon}}}]}, {action: Deny, from: [{namespaces: {matchLabels: {team: web}}}]}]}") +
			netpol(KindNetworkPolicy, "n", "{podSelector: {matchLabels: {role: db}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: web}}}]}]}"), `
mon/prom > default/db TCP/5432: allow
web/front > default/db TCP/5432: deny
default/api > default/db TCP/5432: deny
web/front > default/api TCP/8080: deny
default/bare > default/api TCP/8080: allow`,
	},
	{
		"Pass: Skips all further ClusterNetworkPolicy rules in the current tier … and passes evaluation to the next tier",
		cnp("a", "{tier: Admin, priority: 1, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {role: db}}}}, ingress: [{action: Pass, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {role: frontend}}}}]}]}") +
			cnp("b", "{tier: Admin, priority: 2, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {matchLabels: {team: web}}}]}]}") +
			netpol(KindNetworkPolicy, "n", "{podSelector: {matchLabels: {role: db}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: web}}}], ports: [{port: 5432}]}]}"), `
web/front > default/db TCP/5432: allow
web/front > default/db TCP/80: deny
web/api > default/db TCP/5432: deny`,
	},
	{
		"Policies with lower priority values have higher precedence; a rule that appears at the top … would take the highest precedence",
		cnp("z", "{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Accept, to: [{networks: [203.0.113.9/32]}]}]}") +
			cnp("a", "{tier: Admin, priority: 2, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [203.0.113.0/24]}]}, {action: Accept, to: [{networks: [203.0.113.10/32]}]}]}"), `
default/api > 203.0.113.9 TCP/443: allow
default/api > 203.0.113.10 TCP/443: deny
default/api > 198.51.100.1 TCP/443: allow`,
	},
	{
		"Baseline tier is a cluster-wide policy that can be overridden by the v1.NetworkPolicy",
		cnp("b", "{tier: Baseline, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}") +
			netpol(KindNetworkPolicy, "n", "{podSelector: {matchLabels: {role: db}}, ingress: [{from: [{podSelector: {}}]}]}"), `
default/api > default/db TCP/5432: allow
web/front > default/db TCP/5432: deny
default/bare > default/api TCP/8080: deny
203.0.113.9 > default/api TCP/8080: allow`,
	},
	{
		"destinationNamedPort, ranges and protocols; a domain name is accepted by name",
		cnp("a", `{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Accept, to: [{domainNames: ["*.example.com"]}], protocols: [{tcp: {destinationPort: {number: 443}}}]}, {action: Accept, to: [{namespaces: {}}], protocols: [{destinationNamedPort: sql}, {udp: {destinationPort: {range: {start: 10, end: 20}}}}]}, {action: Deny, to: [{networks: [0.0.0.0/0, "::/0"]}]}]}`), `
default/api > 203.0.113.9=a.example.com TCP/443: allow
default/api > 203.0.113.9=a.example.com TCP/80: deny
default/api > 203.0.113.9 TCP/443: deny
default/api > default/db TCP/5432: allow
default/api > default/db TCP/5433: deny
default/api > default/db UDP/15: allow
default/api > default/db UDP/21: deny`,
	},
	{
		"AdminNetworkPolicy and BaselineAdminNetworkPolicy are read as the tiers that they were",
		`apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: a}
spec: {priority: 1, subject: {namespaces: {}}, ingress: [{action: Allow, from: [{namespaces: {matchLabels: {team: mon}}}], ports: [{portNumber: {protocol: TCP, port: 8080}}, {portRange: {protocol: TCP, start: 90, end: 99}}, {namedPort: sql}]}]}
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: BaselineAdminNetworkPolicy
metadata: {name: default}
spec: {subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}
`, `
mon/prom > default/api TCP/8080: allow
mon/prom > default/api TCP/95: allow
mon/prom > default/api TCP/80: deny
mon/prom > default/db TCP/5432: allow
web/front > default/api TCP/8080: deny`,
	},
	{
		"native: the lower priority is asked first, whoever allows or denies",
		netpol(KindPolicy, "first", "{priority: 1, podSelector: {matchLabels: {role: db}}, ingress: [{from: [{podSelector: {matchLabels: {role: api}}}]}]}") +
			netpol(KindPolicy, "second", "{priority: 2, podSelector: {}, ingress: [{action: Deny, from: [{podSelector: {}}]}]}") +
			netpol(KindNetworkPolicy, "last", "{podSelector: {}, ingress: [{}]}"), `
default/api > default/db TCP/5432: allow
default/bare > default/db TCP/5432: deny
web/front > default/db TCP/5432: allow`,
	},
	{
		"a shadow denies nothing",
		netpol(KindPolicy, "x", "{mode: shadow, podSelector: {}}") + netpol(KindNetworkPolicy, "y, annotations: {bulkhead.dev/mode: shadow}", "{podSelector: {}}"), `
default/api > default/db TCP/5432: allow`,
	},
}

func TestTiers(t *testing.T) {
	v := town()
	for _, c := range tiers {
		s := setOf(t, c.policies)
		for _, line := range strings.Split(strings.TrimSpace(c.want), "\n") {
			question, want, _ := strings.Cut(line, ": ")
			if d := s.Evaluate(v, connection(t, v, question)); d.Verdict.String() != want {
				t.Errorf("%s\n%s: got %s\n%s", c.sentence, line, d.Verdict, strings.Join(d.Reasons(), "\n"))
			}
		}
	}
}

// TestExpiry: a rule means nothing from its date on, and its policy goes on isolating.
func TestExpiry(t *testing.T) {
	v := town()
	s := setOf(t, netpol(KindPolicy, "x", "{podSelector: {matchLabels: {role: db}}, ingress: [{expires: 2030-06-01, from: [{podSelector: {}}]}]}"))
	end := time.Date(2030, 6, 1, 0, 0, 0, 0, time.UTC)
	if next, ok := s.NextExpiry(end.Add(-time.Hour)); !ok || !next.Equal(end) {
		t.Errorf("next expiry %v %v, want %v", next, ok, end)
	}
	for at, want := range map[time.Time]Verdict{end.Add(-time.Second): Allow, end: Deny} {
		if d := s.At(at).Evaluate(v, connection(t, v, "default/api > default/db TCP/5432")); d.Verdict != want {
			t.Errorf("at %s: %s, want %s", at, d.Verdict, want)
		}
	}
}
