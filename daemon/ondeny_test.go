package daemon

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// TestOnDeny: the configuration's manner holds where no policy says one, and what explain, trace and
// flows tell is what the application meets.
func TestOnDeny(t *testing.T) {
	n := newNode(t)
	d := n.start("onDeny: {egress: Reject}")
	web, db := n.pod("web-1"), n.pod("db-1")
	d.add(web, db)
	db.serve(5432)
	policy := func(manner string, types string) api.File {
		return api.File{Name: "p.yaml", Data: fmt.Sprintf(`apiVersion: bulkhead.dev/v1alpha1
kind: Policy
metadata: {name: closed, namespace: shop}
spec:
%s  podSelector: {}
  policyTypes: [%s]
`, manner, types)}
	}
	for _, row := range []struct {
		name, manner, types string
		meets, told         string
	}{
		{"egress, as configured", "", "Egress", "refused", "reject"},
		{"ingress, as configured", "", "Ingress", "timeout", "drop"},
		{"ingress, as the policy says", "  onDeny: Reject\n", "Ingress", "refused", "reject"},
		{"egress, as the policy says", "  onDeny: Drop\n", "Egress", "timeout", "drop"},
	} {
		d.apply("enforce", policy(row.manner, row.types))
		_, err := web.dial(db.v4, 5432, time.Second)
		var timeout net.Error
		meets := "answered"
		switch {
		case errors.Is(err, unix.ECONNREFUSED):
			meets = "refused"
		case errors.As(err, &timeout) && timeout.Timeout():
			meets = "timeout"
		}
		if meets != row.meets {
			t.Errorf("%s: %s (%v), want %s", row.name, meets, err, row.meets)
		}
		x, err := d.client.Explain(ctx, api.ExplainRequest{Client: "shop/web-1", Server: "shop/db-1", Protocol: "TCP", Port: 5432})
		n.must(err)
		if x.Verdict != "deny" || x.OnDeny != row.told {
			t.Errorf("%s: explain says %s, %q; want deny, %q", row.name, x.Verdict, x.OnDeny, row.told)
		}
		got, fates := d.trace(api.TraceRequest{Client: "shop/web-1", Server: "shop/db-1", Protocol: "TCP", Port: 5432})
		rejected := false
		for _, s := range got.Steps {
			rejected = rejected || s.Rejected
		}
		if rejected != (row.told == "reject") || !got.Agrees {
			t.Errorf("%s: trace: %s, rejected %v, agrees %v: %+v", row.name, fates, rejected, got.Agrees, got.Steps)
		}
		eventually(t, 5*time.Second, row.name+": told among the flows", func() error {
			flows, err := d.client.Flows(ctx, api.FlowQuery{Verdict: "deny"})
			for _, f := range flows {
				if f.OnDeny == row.told {
					return nil
				}
			}
			return fmt.Errorf("none of %+v is told by %q, %v", flows, row.told, err)
		})
	}
}
