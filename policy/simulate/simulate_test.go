package simulate

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

const inForce = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: cart}}}]
`

const proposed = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: 5432}]
  - from: [{podSelector: {matchLabels: {app: backup}}}]
`

func setOf(t *testing.T, text string) *policy.Set {
	t.Helper()
	list, err := policy.Parse("p.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.NewSet(list...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestCompare: what breaks and opens, against a set in force, against the evidence alone, and with modes
// that let everything through.
func TestCompare(t *testing.T) {
	ix := identity.NewIndex("")
	for i, app := range []string{"cart", "db", "web"} {
		ix.Upsert(identity.Workload{ID: app, Namespace: "shop", Name: app + "-1", Labels: identity.Labels{"app": app},
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})}, Source: identity.SourceInventory})
	}
	view := ix.View()
	pod := func(app string) []identity.Peer {
		w := view.Find("shop", app+"-1")
		return []identity.Peer{{Kind: identity.Pod, Workload: w, Addr: w.Addrs[0]}}
	}
	world := func(text string, outcome func(policy.Decision, policy.Connection) policy.Verdict) *World {
		set := setOf(t, text)
		return &World{Set: set, Outcome: outcome, Judge: func(c policy.Connection) policy.Decision { return set.Evaluate(view, c) }}
	}
	edge := func(client string, port uint16, count, denied uint64) Edge {
		return Edge{Client: client, Server: "db", Clients: pod(client), Servers: pod("db"), Protocol: identity.TCP, Port: port, Count: count, Denied: denied}
	}
	edges := []Edge{
		edge("cart", 5432, 10, 0), // allowed in force, denied by what is proposed
		edge("web", 5432, 0, 4),   // denied in force, allowed by what is proposed
		edge("web", 22, 0, 4),     // denied in both
		edge("web", 80, 3, 0),     // seen before the policy in force came
		{Client: "gone", Server: "db", Servers: pod("db"), Protocol: identity.TCP, Port: 1, Count: 1},
	}
	learn := func(policy.Decision, policy.Connection) policy.Verdict { return policy.Allow }
	for _, row := range []struct {
		name string
		from *World
		to   *World
		want string
	}{
		{"on what is in force", world(inForce, nil), world(proposed, nil), "breaks cart/5432 ingress; opens web/5432 shop/db ingress[0]; allowed 0 denied 2; unknown 1; unused shop/db ingress[1]"},
		{"on evidence", nil, world(proposed, nil), "breaks cart/5432 ingress; breaks web/80 ingress; opens web/5432 shop/db ingress[0]; allowed 0 denied 1; unknown 1; unused shop/db ingress[1]"},
		{"modes do not hide what policy says", world(inForce, learn), world(proposed, learn), "breaks cart/5432 ingress; opens web/5432 shop/db ingress[0]; allowed 2 denied 0; unknown 1; unused shop/db ingress[1]"},
		{"nothing changes", world(inForce, nil), world(inForce, nil), "allowed 1 denied 3; unknown 1"},
	} {
		if d := cmp.Diff(row.want, printed(Compare(row.from, *row.to, edges))); d != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, d)
		}
	}
}

func printed(r Report) string {
	var out []string
	for _, c := range r.Breaks {
		out = append(out, strings.TrimSpace(fmt.Sprintf("breaks %s/%d %s %s", c.Client, c.Port, c.Side, c.Rule)))
	}
	for _, c := range r.Opens {
		out = append(out, fmt.Sprintf("opens %s/%d %s", c.Client, c.Port, c.Rule))
	}
	out = append(out, fmt.Sprintf("allowed %d denied %d", r.Allowed, r.Denied), fmt.Sprintf("unknown %d", len(r.Unknown)))
	for _, u := range r.Unused() {
		out = append(out, "unused "+u.Rule)
	}
	return strings.Join(out, "; ")
}
