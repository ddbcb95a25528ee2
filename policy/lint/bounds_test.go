package lint_test

import (
	"fmt"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/lint"
)

// many makes n policies that all select the same workloads, and admit different ones.
func many(n int, action policy.Action) []policy.Policy {
	out := make([]policy.Policy, n)
	for i := range out {
		out[i] = policy.Policy{Kind: policy.KindPolicy, Namespace: "shop", Name: fmt.Sprintf("p%d", i), Spec: policy.Spec{Ingress: []policy.Rule{{
			Action: action,
			Peers:  []policy.Peer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("a%d", i)}}}},
			Ports:  []policy.Port{policy.PortNumber(identity.TCP, 80)},
		}}}}
	}
	return out
}

// TestBounds: the work for sets that are built to be slow has an end, and it says that it ended.
func TestBounds(t *testing.T) {
	set, err := policy.NewSet(many(200, policy.ActionAllow)...)
	if err != nil {
		t.Fatal(err)
	}
	found := lint.Check(set, nil, lint.Options{Bound: 10_000})
	if !slices.ContainsFunc(found, func(f lint.Finding) bool { return f.Check == "too-many-rules" }) {
		t.Errorf("nothing is said of rules that were not compared: %v", found)
	}
	if found := lint.Check(set, nil, lint.Options{}); len(found) > 0 {
		t.Errorf("of 200 policies: %v", found)
	}
}
