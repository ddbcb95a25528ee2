package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// TestCompilerFollows: as a cluster changes, a compiler gives what Entries gives from nothing, says
// rightly whether that is news, and never writes to what it gave before.
func TestCompilerFollows(t *testing.T) {
	d := newDice(t)
	compiled, news, followed := 0, 0, 0
	for range 40 {
		ix, s := d.index(), d.set(t)
		compilers := map[string]*Compiler{}
		last := map[string]Sides{}
		texts := map[string]string{}
		for step := range 25 {
			for range 1 + d.IntN(3) {
				d.disturb(ix)
			}
			if d.chance(5) {
				s = d.set(t)
			}
			v := ix.View()
			for _, w := range v.Workloads {
				c := compilers[w.ID]
				if c == nil {
					c = &Compiler{}
					compilers[w.ID] = c
				}
				old := c.sides
				got, changed := c.Sides(s, v, w)
				want := s.Entries(v, w)
				if !got.Equal(want) {
					t.Fatalf("step %d, %s: followed:\n%s\n%s\nfrom nothing:\n%s\n%s", step, w.ID, dump(got.Egress), dump(got.Ingress), dump(want.Egress), dump(want.Ingress))
				}
				before, known := last[w.ID]
				if known && changed != !before.Equal(got) {
					t.Fatalf("step %d, %s: changed: %v", step, w.ID, changed)
				}
				if known && texts[w.ID] != fmt.Sprint(before) {
					t.Fatalf("step %d, %s: what was given was written to", step, w.ID)
				}
				last[w.ID], texts[w.ID] = got, fmt.Sprint(got)
				compiled++
				if changed {
					news++
				}
				if old[0] != nil && changed && c.sides[0].flat == old[0].flat && c.sides[1].flat == old[1].flat {
					followed++
				}
			}
		}
	}
	t.Logf("%d sides, %d of them news, %d by following", compiled, news, followed)
	if followed == 0 {
		t.Error("no change was followed: nothing was tested")
	}
}

// disturb changes one thing in a cluster, mostly a workload.
func (d dice) disturb(ix *identity.Index) {
	switch d.IntN(25) {
	case 0:
		ix.SetNode(d.addrs(3))
	case 1:
		ix.SetNamespaceLabels(map[string]identity.Labels{"a": d.labels(), "b": d.labels()})
	case 2:
		ix.SetResolvers(d.addrs(2))
	default:
		i := d.IntN(15)
		if d.chance(30) {
			ix.Withdraw(fmt.Sprintf("w%02d", i), identity.SourceInventory)
		} else {
			ix.Upsert(d.workload(i))
		}
	}
}

// TestCompilerLosesItsWitness: a block that is denied is written as one element as long as nothing
// inside of it is allowed.
func TestCompilerLosesItsWitness(t *testing.T) {
	rule := func(name string, priority int32, r Rule) Policy {
		return Policy{Kind: KindPolicy, Namespace: "a", Name: name, Spec: Spec{Priority: priority, Egress: []Rule{r}}}
	}
	within := func(cidr string) []Peer { return []Peer{{IPBlock: &networkingv1.IPBlock{CIDR: cidr}}} }
	app := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "x"}}
	s, err := NewSet(
		rule("first", 1, Rule{Peers: []Peer{{PodSelector: app}}}),
		rule("second", 2, Rule{Peers: within("10.0.0.0/8"), Action: ActionDeny}),
		rule("third", 3, Rule{Peers: within("0.0.0.0/0")}))
	if err != nil {
		t.Fatal(err)
	}
	ix := identity.NewIndex("n1")
	add := func(id string, labels identity.Labels, a string) {
		ix.Upsert(identity.Workload{ID: id, Namespace: "a", Name: id, Labels: labels, Addrs: []netip.Addr{netip.MustParseAddr(a)}, Source: identity.SourceGossip})
	}
	add("me", nil, "10.0.0.1")
	c := &Compiler{}
	for i, step := range []func(){
		func() {}, func() { add("x1", identity.Labels{"app": "x"}, "10.0.0.2") }, func() { add("x2", identity.Labels{"app": "x"}, "10.0.0.3") },
		func() { ix.Withdraw("x1", identity.SourceGossip) }, func() { ix.Withdraw("x2", identity.SourceGossip) },
	} {
		step()
		v := ix.View()
		got, _ := c.Sides(s, v, v.Workload("me"))
		if want := s.Entries(v, v.Workload("me")); !slices.Equal(got.Egress.Entries, want.Egress.Entries) || !slices.Equal(got.Egress.Denied, want.Egress.Denied) {
			t.Errorf("step %d:\n%s\nwant\n%s", i, dump(got.Egress), dump(want.Egress))
		}
	}
}
