package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

func TestMatchesName(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"api.example.com", "api.example.com", true},
		{"api.example.com", "www.api.example.com", false},
		{"*.example.com", "api.example.com", true},
		{"*.example.com", "a.b.example.com", true}, // "one or more subdomains"
		{"*.example.com", "example.com", false},
		{"*.example.com", "badexample.com", false},
		{"*.example.com", ".example.com", false},
	} {
		if got := MatchesName(c.pattern, c.name); got != c.want {
			t.Errorf("%s matches %s: %v", c.pattern, c.name, got)
		}
	}
}

const byNames = `apiVersion: bulkhead.dev/v1alpha1
kind: Policy
metadata: {name: api, namespace: default}
spec:
  podSelector: {matchLabels: {role: api}}
  policyTypes: [Egress]
  egress:
  - {to: [{dnsName: api.example.com}, {dnsName: "*.cdn.example.com"}], ports: [{port: 443}, {protocol: UDP, port: 443}]}
  - {to: [{dnsName: any.example.com}]}
`

const allowlist = `apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: allowlist}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {}}
  egress:
  - {action: Accept, to: [{domainNames: [api.example.com]}], protocols: [{tcp: {destinationPort: {number: 443}}}]}
  - {action: Deny, to: [{networks: [0.0.0.0/0, "::/0"]}]}
`

const denyTen = `apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: deny-ten}
spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [203.0.113.0/24]}]}]}
`

const fence = `apiVersion: policy.networking.k8s.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: fence}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {}}
  egress:
  - {action: Accept, to: [{networks: [203.0.113.128/25]}]}
  - {action: Deny, to: [{networks: [203.0.113.0/24]}]}
`

// What a side says of names, and what a name can and cannot open.
func TestNames(t *testing.T) {
	for name, c := range map[string]struct {
		policies []string
		names    string
		entries  string
		verdicts map[string]Verdict // "address protocol/port names…"
	}{
		"names of a native policy": {
			[]string{byNames},
			`*.cdn.example.com TCP 443
*.cdn.example.com UDP 443
any.example.com any 0
api.example.com TCP 443
api.example.com UDP 443`,
			`10.96.0.10/32 TCP 53-53 built-in dns
10.96.0.10/32 UDP 53-53 built-in dns`,
			map[string]Verdict{
				"203.0.113.5 TCP 443 api.example.com":           Allow,
				"203.0.113.5 TCP 80 api.example.com":            Deny,
				"203.0.113.5 TCP 443":                           Deny,
				"203.0.113.5 TCP 443 x.y.cdn.example.com":       Allow,
				"203.0.113.5 TCP 443 other.com api.example.com": Allow,
				"203.0.113.5 ICMP 8 any.example.com":            Allow,
			},
		},
		"an allowlist of names in the admin tier": {
			[]string{allowlist},
			`api.example.com TCP 443`,
			`deny 10.96.0.7/32 TCP 80-80 allowlist egress[1] (service default/db)`,
			map[string]Verdict{
				"203.0.113.5 TCP 443 api.example.com": Allow,
				"203.0.113.5 TCP 443 www.example.com": Deny,
				"10.0.0.2 TCP 443":                    Deny,
			},
		},
		"what is denied before a name stays denied": {
			[]string{byNames, denyTen},
			`*.cdn.example.com TCP 443
*.cdn.example.com UDP 443
any.example.com any 0
api.example.com TCP 443
api.example.com UDP 443`,
			`10.96.0.10/32 TCP 53-53 built-in dns
10.96.0.10/32 UDP 53-53 built-in dns
deny 203.0.113.0/24 any 0-0 deny-ten egress[0]`,
			map[string]Verdict{
				"203.0.113.5 TCP 443 api.example.com":  Deny,
				"198.51.100.5 TCP 443 api.example.com": Allow,
			},
		},
		"also where something inside is allowed": {
			[]string{byNames, fence},
			`*.cdn.example.com TCP 443
*.cdn.example.com UDP 443
any.example.com any 0
api.example.com TCP 443
api.example.com UDP 443`,
			`10.96.0.10/32 TCP 53-53 built-in dns
10.96.0.10/32 UDP 53-53 built-in dns
203.0.113.128/25 any 0-0 fence egress[0]
deny 203.0.113.0/25 any 0-0 fence egress[1]`,
			map[string]Verdict{
				"203.0.113.5 TCP 443 api.example.com":   Deny,
				"203.0.113.200 TCP 443 api.example.com": Allow,
				"198.51.100.5 TCP 443 api.example.com":  Allow,
			},
		},
		"letters of any case, and a last dot": {
			[]string{strings.NewReplacer("api.example.com", "API.Example.com.", ", {dnsName: \"*.cdn.example.com\"}", "").Replace(byNames)},
			`any.example.com any 0
api.example.com TCP 443
api.example.com UDP 443`,
			`10.96.0.10/32 TCP 53-53 built-in dns
10.96.0.10/32 UDP 53-53 built-in dns`,
			map[string]Verdict{"203.0.113.5 TCP 443 api.example.com": Allow},
		},
		"a name that everything is denied before is none": {
			[]string{byNames, strings.Replace(denyTen, "203.0.113.0/24", `0.0.0.0/0, "::/0"`, 1)},
			``, ``,
			map[string]Verdict{"203.0.113.5 TCP 443 api.example.com": Deny},
		},
	} {
		v := town()
		s := setOf(t, strings.Join(c.policies, "---\n"))
		side := s.Entries(v, v.Find("default", "api")).Egress
		var got []string
		for _, n := range side.Names {
			got = append(got, strings.Join([]string{n.Name, n.Protocol.String(), portText(n.Port)}, " "))
		}
		if diff := cmp.Diff(c.names, strings.Join(got, "\n")); diff != "" {
			t.Errorf("%s: names: -want +got\n%s", name, diff)
		}
		text := strings.ReplaceAll(strings.ReplaceAll(dump(side), "\n  ", "\n"), "  ", " ")
		if diff := cmp.Diff(c.entries, strings.TrimSpace(text)); diff != "" {
			t.Errorf("%s: entries: -want +got\n%s", name, diff)
		}
		if !side.Isolated {
			t.Errorf("%s: the side is open", name)
		}
		for question, want := range c.verdicts {
			f := strings.Fields(question)
			conn := connection(t, v, "default/api > "+f[0]+" "+f[1]+"/"+f[2])
			conn.Names = f[3:]
			if d := s.Evaluate(v, conn).Egress; d.Verdict != want {
				t.Errorf("%s: %s: %s, want %s: %s", name, question, d.Verdict, want, d.Reason)
			}
		}
	}
}

func portText(n uint16) string { return PortNumber(identity.TCP, n).Port.String() }
