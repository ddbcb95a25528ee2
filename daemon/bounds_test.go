package daemon

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/api"
)

// TestBound: a change beyond the bound of one workload is refused whole: what is in force stays, also
// for the others; the node still reaches it, status, workload and one alert name it, and a change that
// fits takes force.
func TestBound(t *testing.T) {
	n := newNode(t)
	d := n.start("maxEntries: 60")
	web, db := n.pod("web-1"), n.pod("db-1")
	d.add(web, db)
	db.serve(5432)
	rules := func(ports int) api.File {
		var b strings.Builder
		for p := range ports {
			fmt.Fprintf(&b, "    - {port: %d}\n", 5432+p)
		}
		return api.File{Name: "db.yaml", Data: `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports:
` + b.String()}
	}
	d.apply("enforce", rules(2))
	n.must(web.reaches(db.v4, 5432))
	for range 2 {
		if r := d.apply("", rules(100)); r.Workloads != 1 {
			t.Errorf("%d workloads hold what is beyond the bound of one of two", r.Workloads)
		}
	}
	n.must(web.reaches(db.v4, 5432))
	if web.reaches(db.v4, 5500) == nil {
		t.Error("what was refused is in force")
	}
	if out := d.nodeReaches(db, 5432); out != nil {
		t.Errorf("the node: %v", out)
	}
	w, err := d.workload(db.id)
	n.must(err)
	if !strings.Contains(w.Error, "entries, bound 60") || !strings.Contains(w.Error, "bound 60 (maxEntries); the change was refused whole") {
		t.Errorf("workload says %q", w.Error)
	}
	s, err := d.client.Status(ctx)
	n.must(err)
	if !strings.Contains(strings.Join(s.Warnings, "\n"), "bound reached: shop/db-1") {
		t.Errorf("status says %q", s.Warnings)
	}
	d.wantAlert(alert.Bound, "the bound", func(a alert.Alert) bool { return a.Server.Workload == "shop/db-1" })
	if r := d.apply("", rules(3)); r.Workloads != 2 {
		t.Errorf("%d workloads hold what fits, want 2", r.Workloads)
	}
	eventually(t, 5*time.Second, "the warning gone", func() error {
		s, err := d.client.Status(ctx)
		if err == nil && strings.Contains(strings.Join(s.Warnings, "\n"), "bound reached") {
			err = fmt.Errorf("status says %q", s.Warnings)
		}
		return err
	})
	if got := d.alertsOf(alert.Bound); len(got) != 1 {
		t.Errorf("%d alerts of one bound: %+v", len(got), got)
	}
}

// nodeReaches connects from the node's own namespace.
func (p *process) nodeReaches(to *pod, port int) error {
	node := &pod{n: p.n, ns: p.n.ns}
	return node.reaches(to.v4, port)
}
