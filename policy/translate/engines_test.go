package translate

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// TestEngines reviews the table: no statement without a source, no field or state that nobody knows.
func TestEngines(t *testing.T) {
	if _, err := readEngines(enginesYAML); err != nil {
		t.Fatal(err)
	}
	month := regexp.MustCompile(`^20\d\d(-(0[1-9]|1[0-2]))?$`)
	name := regexp.MustCompile(`^[a-z0-9-]+$`)
	seen := map[string]bool{}
	for _, e := range Engines() {
		if !name.MatchString(e.Name) || seen[e.Name] || e.Title == "" || len(e.Fields) == 0 {
			t.Errorf("engine %q: want a short name of its own, a title and statements", e.Name)
		}
		seen[e.Name] = true
		for field, s := range e.Fields {
			at := e.Name + " " + string(field)
			if !slices.Contains(Fields, field) {
				t.Errorf("%s: no such field", at)
			}
			if !slices.Contains([]State{Supported, Partial, Ignored, Refused}, s.State) {
				t.Errorf("%s: state %q", at, s.State)
			}
			if s.Note == "" || s.Title == "" {
				t.Errorf("%s: note and title are needed", at)
			}
			if u, err := url.Parse(s.Source); err != nil || u.Scheme != "https" || u.Host == "" {
				t.Errorf("%s: source %q: want an https address", at, s.Source)
			}
			if !month.MatchString(s.AsOf) {
				t.Errorf("%s: asOf %q: want a year, or a year and month", at, s.AsOf)
			}
		}
	}
	for _, want := range []string{"antrea", "aws-vpc-cni", "azure-npm", "calico", "cilium", "kube-network-policies", "kube-router", "ovn-kubernetes", "weave-net"} {
		if _, ok := FindEngine(want); !ok {
			t.Errorf("engine %s is missing", want)
		}
	}
}

// TestAsk: what an engine ignores is told with its place, what it supports is not, and what nobody
// knows stays unknown.
func TestAsk(t *testing.T) {
	list, err := policy.Parse("x.yaml", []byte(`apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: x, namespace: shop}
spec:
  podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [a]}]}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.0/25]}
    - ipBlock: {cidr: 2001:db8::/32}
    - namespaceSelector: {}
      podSelector: {}
    ports:
    - {port: 8000, endPort: 9000}
    - {port: http}
    - {port: 5000, protocol: SCTP}
`))
	if err != nil {
		t.Fatal(err)
	}
	uses := Uses(&list[0])
	for engine, want := range map[string]string{
		"cilium":            "endPort ignored, ipBlock partial, sctp partial; unknown dualStack except ipv6 namedPort namespaceAndPodSelector negativeSelector",
		"azure-npm-windows": "except refused, ipv6 ignored, namedPort refused, negativeSelector refused, sctp refused; unknown dualStack endPort ipBlock namespaceAndPodSelector",
		"azure-npm":         "dualStack ignored, ipv6 ignored; unknown ipBlock namespaceAndPodSelector",
		"flannel":           "networkPolicy ignored; unknown ",
		"kube-router":       "sctp ignored; unknown dualStack except ipBlock ipv6 namedPort namespaceAndPodSelector negativeSelector",
	} {
		e, ok := FindEngine(engine)
		if !ok {
			t.Fatal(engine)
		}
		trouble, unknown := e.Ask(uses)
		var said, fields []string
		for _, v := range trouble {
			said = append(said, string(v.Field)+" "+string(v.State))
			if v.Path == "" || v.Policy == "" {
				t.Errorf("%s: %+v has no place", engine, v)
			}
		}
		for _, f := range unknown {
			fields = append(fields, string(f))
		}
		slices.Sort(said)
		if got := strings.Join(said, ", ") + "; unknown " + strings.Join(fields, " "); got != want {
			t.Errorf("%s:\n got %s\nwant %s", engine, got, want)
		}
	}
}
