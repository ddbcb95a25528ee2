package daemon

import (
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

const cartFromWeb = `apiVersion: bulkhead.dev/v1alpha1
kind: Policy
metadata: {name: cart, namespace: shop}
spec:
  podSelector: {matchLabels: {app: cart}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]
`

func shopWorkload(i int, app string) identity.Workload {
	return identity.Workload{
		ID: fmt.Sprintf("%s-%d", app, i), Namespace: "shop", Name: fmt.Sprintf("%s-%d", app, i), Labels: identity.Labels{"app": app},
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, app[0] + byte(i)})}, Source: identity.SourceGossip,
	}
}

// TestSidesFollowChanges: a change that concerns a workload gives it other sides; one that does not
// leaves them where they are; the sweep works them out all the same, and tells where they were wrong.
func TestSidesFollowChanges(t *testing.T) {
	list, err := policy.Parse("cart.yaml", []byte(cartFromWeb))
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.NewSet(list...)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	d := &Daemon{index: identity.NewIndex("n1")}
	d.rules.Store(&rulebook{set: set})
	w := &workload{d: d, id: "cart-0", log: slog.New(slog.NewTextHandler(&log, nil))}
	d.index.Upsert(shopWorkload(0, "cart"))
	d.index.Upsert(shopWorkload(0, "web"))
	g := &grip{}
	look := func() policy.Sides {
		v := d.index.View()
		got := w.sides(g, v, v.Workload(w.id))
		if want := set.Entries(v, v.Workload(w.id)); !reflect.DeepEqual(got, want) {
			t.Fatalf("sides are %+v, want %+v", got, want)
		}
		return got
	}
	same := func(a, b policy.Sides) bool { return &a.Ingress.Entries[0] == &b.Ingress.Entries[0] }
	first := look()
	d.index.Upsert(shopWorkload(0, "db"))
	if !same(first, look()) {
		t.Error("a workload that no rule means: sides were worked out anew")
	}
	d.index.Upsert(shopWorkload(1, "web"))
	second := look()
	if same(first, second) || len(second.Ingress.Entries) != len(first.Ingress.Entries)+1 {
		t.Errorf("a workload that a rule means: %+v", second)
	}
	d.index.Withdraw("web-0", identity.SourceGossip)
	if third := look(); len(third.Ingress.Entries) != len(first.Ingress.Entries) {
		t.Errorf("a workload that a rule meant has gone: %+v", third)
	}
	g.basis.doubted = true
	look()
	if log.Len() > 0 {
		t.Errorf("the sweep found nothing, and says: %s", &log)
	}
	g.basis.sides, g.basis.doubted = first, true // as if a change had been missed
	look()
	if !strings.Contains(log.String(), "out of date") {
		t.Errorf("the sweep does not tell of sides that were wrong: %s", &log)
	}
}
