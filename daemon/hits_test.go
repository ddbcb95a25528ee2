package daemon

import (
	"fmt"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// statsOf gives what a policy was used for: "ingress[0] allowed denied wouldDeny, …, rest …".
func (p *process) statsOf(name string) (string, *api.PolicyStats) {
	p.n.t.Helper()
	all, err := p.client.Policies(ctx)
	p.n.must(err)
	for _, x := range all {
		if x.Name != name || x.Stats == nil {
			continue
		}
		text := ""
		for _, r := range x.Stats.Rules {
			text += fmt.Sprintf("%s[%d] %d %d %d, ", r.Direction, r.Index, r.Allowed, r.Denied, r.WouldDeny)
		}
		return text + fmt.Sprintf("rest %d %d %d", x.Stats.Rest.Allowed, x.Stats.Rest.Denied, x.Stats.Rest.WouldDeny), x.Stats
	}
	return "none", nil
}

// TestHits: each rule is told what it was used for, repeats in the kernel's sets included; it is kept
// over a restart, and begins anew where the policy's text changes.
func TestHits(t *testing.T) {
	n := newNode(t)
	d := n.start()
	web, db := n.pod("web-1"), n.pod("db-1")
	d.add(web, db)
	db.serve(5432)
	text := `apiVersion: bulkhead.dev/v1alpha1
kind: Policy
metadata: {name: db, namespace: shop}
spec:
  onDeny: Reject
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
  ingress:
  - action: Deny
    from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: 22}]
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: 5432}]
  - name: nobody
    from: [{ipBlock: {cidr: 192.0.2.0/24}}]
`
	d.apply("enforce", api.File{Name: "db.yaml", Data: text})
	begin := time.Now()
	for range 3 {
		n.must(web.reaches(db.v4, 5432))
	}
	if web.reaches(db.v4, 22) == nil || web.reaches(db.v4, 23) == nil {
		t.Error("what is denied is reached")
	}
	want := "ingress[0] 0 1 0, ingress[1] 3 0 0, ingress[2] 0 0 0, rest 0 1 0"
	eventually(t, 30*time.Second, "three connections and two denials counted", func() error {
		if got, _ := d.statsOf("db"); got != want {
			return fmt.Errorf("%s, want %s", got, want)
		}
		return nil
	})
	_, s := d.statsOf("db")
	if s.Rules[2].Last != nil || s.Rules[1].Last == nil || s.Rules[1].Last.Before(begin.Add(-time.Second)) || s.Since.After(begin) {
		t.Errorf("times: %+v", s)
	}
	d.stop()
	d = n.start()
	if got, again := d.statsOf("db"); got != want || !again.Since.Equal(s.Since) {
		t.Errorf("after a restart: %s since %v, want %s since %v", got, again.Since, want, s.Since)
	}
	d.apply("enforce", api.File{Name: "db.yaml", Data: text + "  # edited\n"})
	if got, _ := d.statsOf("db"); got != "ingress[0] 0 0 0, ingress[1] 0 0 0, ingress[2] 0 0 0, rest 0 0 0" {
		t.Errorf("after an edit: %s", got)
	}
}
