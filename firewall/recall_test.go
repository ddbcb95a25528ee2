package firewall

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

func TestSpanPrefixes(t *testing.T) {
	for _, c := range []struct {
		lo, hi string
		want   []string
	}{
		{"10.0.0.0", "10.0.0.255", []string{"10.0.0.0/24"}},
		{"10.0.0.1", "10.0.0.4", []string{"10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/32"}},
		{"0.0.0.0", "255.255.255.255", []string{"0.0.0.0/0"}},
		{"255.255.255.254", "255.255.255.255", []string{"255.255.255.254/31"}},
		{"::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", []string{"::/0"}},
		{"fd00::1", "fd00::3", []string{"fd00::1/128", "fd00::2/127"}},
		{"10.0.0.5", "10.0.0.4", nil},
	} {
		var got []string
		for _, p := range (span{netip.MustParseAddr(c.lo), netip.MustParseAddr(c.hi)}).prefixes() {
			got = append(got, p.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s-%s: got %v, want %v", c.lo, c.hi, got, c.want)
		}
	}
}

// What is read from sets makes the same sets again.
func TestRecallSides(t *testing.T) {
	node := newTestNode(t)
	client, server := node.workload(t), node.workload(t)
	rows := []policy.Sides{
		denyOut(egress(allBlocks()...), everything(server)...),
		denyOut(egress(append(churn(4), allows(server)...)...), churn(5)...),
		denyIn(ingress(allBlocks()...), denyRanges()...),
		denyOut(policy.Sides{}, denyRanges()...),
		both(denyOut(egress(churn(2)...), churn(3)...), denyIn(policy.Sides{}, churn(6)...)),
	}
	for i, sides := range rows {
		client.apply(t, policy.Enforce, sides)
		want := Compile(client.spec(policy.Enforce, sides))
		if err := client.ns.Close(); err != nil {
			t.Fatal(err)
		}
		client.open(t)
		client.ns.recall(want)
		got := client.ns.have.spec
		if got.Mode == 0 {
			t.Errorf("row %d: what the rules were made from is not found", i)
			continue
		}
		for _, c := range Diff(Compile(got), want) {
			t.Errorf("row %d: %s", i, c)
		}
		client.apply(t, policy.Enforce, sides)
	}
}
