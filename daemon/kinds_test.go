package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/api"
)

// noBad is a cluster-wide policy that nobody of its subject's namespaces may go round.
const noBad = `apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: no-bad%s}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: shop}}}
  ingress:
  - name: bad
    action: Deny
    from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: bad}}}}]
`

// TestClusterWide: policies without a namespace live in files, in the API, as shadows, in the history and
// over restarts as others do.
func TestClusterWide(t *testing.T) {
	n := newNode(t)
	file := filepath.Join(n.dir, "policies", "cluster.yaml")
	n.must(os.WriteFile(file, []byte(fmt.Sprintf(noBad, "")), 0o600))
	d := n.start("defaultMode: enforce")
	web, bad, cart := n.pod("web-1"), n.pod("bad-1"), n.pod("cart-1")
	d.add(web, bad, cart)
	cart.serve(8080)
	d.wantReach("a file", bad, cart, 8080, false)
	d.wantReach("a file", web, cart, 8080, true)
	list, err := d.client.Policies(ctx)
	if err != nil || len(list) != 1 || list[0].Namespace != "" || list[0].Name != "no-bad" || strings.Join(list[0].Selects, " ") != "shop/bad shop/cart shop/web" {
		t.Errorf("policies %+v, %v", list, err)
	}
	a := d.wantAlert(alert.DeniedBy, "of a rule that denies where nothing isolates", func(alert.Alert) bool { return true })
	if a.Breaks != "rule no-bad ingress[0]" || !strings.Contains(a.Advice, "narrow rule no-bad ingress[0]") || a.Client.Workload != "shop/bad-1" {
		t.Errorf("alert %+v", a)
	}
	if m, err := d.client.Modes(ctx); err != nil || len(m) != 4 || len(m[1].Warnings)+len(m[1].Isolated) != 0 {
		t.Errorf("modes %+v, %v", m, err)
	}
	d.refuses(api.ApplyRequest{Do: api.DoDelete, Names: []api.PolicyName{{Name: "no-bad"}}}, api.Conflict, "ClusterNetworkPolicy no-bad is held by "+file)

	n.must(os.Remove(file))
	eventually(t, 5*time.Second, "the file is gone", func() error { return bad.reaches(cart.v4, 8080) })
	d.do(api.ApplyRequest{Files: []api.File{{Name: "c.yaml", Data: fmt.Sprintf(noBad, ", annotations: {bulkhead.dev/mode: shadow}")}}})
	d.wantReach("a shadow", bad, cart, 8080, true)
	d.seen("no-bad", func(s api.Shadow) bool { return s.Denied > 0 })
	d.do(api.ApplyRequest{Do: api.DoPromote, Now: true, Names: []api.PolicyName{{Kind: "clusternetworkpolicy", Name: "no-bad"}}})
	d.wantReach("promoted", bad, cart, 8080, false)
	d.kill()
	d = n.start("defaultMode: enforce")
	d.wantReach("after a restart", bad, cart, 8080, false)
	if list, err := d.client.Policies(ctx); err != nil || list[0].Mode != "enforce" || !strings.Contains(list[0].YAML, "bulkhead.dev/mode: enforce") {
		t.Errorf("policies %+v, %v", list, err)
	}
	n.must(d.client.DeletePolicy(ctx, "", "", "no-bad"))
	d.wantReach("deleted", bad, cart, 8080, true)
	d.do(api.ApplyRequest{Do: api.DoRollback})
	d.wantReach("rolled back", bad, cart, 8080, false)
}

const native = `# the shop's own
apiVersion: bulkhead.dev/v1alpha1
kind: Policy
metadata: {name: cart, namespace: shop}
spec:
  mode: %s
  severity: critical
  reason: cards are in there
  podSelector: {matchLabels: {app: cart}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
  - action: Deny
    severity: low
    reason: bad is bad
    from: [{podSelector: {matchLabels: {app: bad}}}]
`

// TestNative: mode, severity and reason of the native kind; and the switch for what is allowed without
// a policy.
func TestNative(t *testing.T) {
	n := newNode(t)
	d := n.start("defaultMode: enforce", "allowNode: false")
	web, bad, ad, cart := n.pod("web-1"), n.pod("bad-1"), n.pod("ad-1"), n.pod("cart-1")
	d.add(web, bad, ad, cart)
	cart.serve(8080)
	file := func(mode string) api.File { return api.File{Name: "cart.yaml", Data: fmt.Sprintf(native, mode)} }
	d.do(api.ApplyRequest{Files: []api.File{file("shadow")}})
	d.wantReach("a shadow", ad, cart, 8080, true)
	n.must(web.reaches(cart.v4, 8080))
	n.must(bad.reaches(cart.v4, 8080))
	idle := file("enforce")
	idle.Data += "  - from: [{podSelector: {matchLabels: {app: nobody}}}]\n"
	eventually(t, 5*time.Second, "preview", func() error {
		p, err := d.client.Preview(ctx, api.ApplyRequest{Files: []api.File{idle}})
		n.must(err)
		var broken []string
		for _, b := range p.Breaks {
			broken = append(broken, b.Client+" "+b.Rule)
		}
		if w := strings.Join(p.Warnings, "\n"); !strings.Contains(w, "cart.yaml:") || !strings.Contains(w, "nobody") {
			return fmt.Errorf("warnings %q", p.Warnings)
		}
		if strings.Join(broken, ", ") != "shop/ad , shop/bad shop/cart ingress[1]" || strings.Join(p.Unused, " ") != "shop/cart ingress[2]" || len(p.Opens) != 0 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	if r := d.do(api.ApplyRequest{Files: []api.File{file("enforce")}}); strings.Join(r.Removed, " ") != "Policy shop/cart (shadow)" || len(r.Created) != 1 {
		t.Errorf("the same file with another mode: %+v", r)
	}
	d.wantReach("in force", web, cart, 8080, true)
	for from, want := range map[*pod]struct {
		severity alert.Severity
		note     string
	}{ad: {alert.Critical, "cards are in there"}, bad: {alert.Low, "bad is bad"}} {
		d.wantReach("in force", from, cart, 8080, false)
		a := d.wantAlert(alert.DeniedBy, "of "+from.name, func(a alert.Alert) bool { return a.Client.Workload == "shop/"+from.name })
		if a.Severity != want.severity || strings.Count(a.Reason, want.note) != 1 {
			t.Errorf("alert of %s: %+v", from.name, a)
		}
	}
	if err := in(n.ns, func() error { return reachFrom(cart) }); err == nil {
		t.Error("the node's probe passes although allowNode is false")
	}
	begin := time.Now()
	expiring := file("enforce")
	expiring.Data = strings.Replace(expiring.Data, "  - from: [{podSelector: {matchLabels: {app: web}}}]\n",
		fmt.Sprintf("  - {from: [{podSelector: {matchLabels: {app: web}}}], expires: %s}\n", begin.Add(4*time.Second).UTC().Format(time.RFC3339)), 1)
	d.do(api.ApplyRequest{Files: []api.File{expiring}})
	d.wantReach("before it expires", web, cart, 8080, true)
	long, err := web.dial(cart.v4, 8080, time.Second)
	n.must(err)
	defer long.Close()
	eventually(t, 10*time.Second, "the rule ends", func() error {
		if web.reaches(cart.v4, 8080) == nil {
			return errNot
		}
		return nil
	})
	if took := time.Since(begin); took < 2*time.Second {
		t.Errorf("it ended after %v", took)
	}
	n.must(long.SetDeadline(time.Now().Add(time.Second)))
	if _, err := long.Write([]byte("x")); err == nil {
		if _, err = long.Read(make([]byte, 1)); err == nil {
			t.Error("a connection that the rule had let in goes on")
		}
	}
	d.wantAlert(alert.Expired, "of the rule", func(a alert.Alert) bool {
		return strings.Contains(a.Reason, "rule shop/cart ingress[0] of Policy shop/cart ended at")
	})
}
