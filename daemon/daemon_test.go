package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/api"
)

var ctx = context.Background()

// edges lists the graph as "client server PROTO/port".
func (p *process) edges() map[string]api.Edge {
	p.n.t.Helper()
	g, err := p.client.Graph(ctx)
	p.n.must(err)
	out := map[string]api.Edge{}
	for _, e := range g.Edges {
		out[fmt.Sprintf("%s %s %s/%d", e.Client, e.Server, e.Protocol, e.Port)] = e
	}
	return out
}

// alertsOf lists alerts of a kind.
func (p *process) alertsOf(kind alert.Kind) []alert.Alert {
	p.n.t.Helper()
	raw, err := p.client.Alerts(ctx, string(kind), 0)
	p.n.must(err)
	var out []alert.Alert
	for _, r := range raw {
		var a alert.Alert
		p.n.must(json.Unmarshal(r, &a))
		out = append(out, a)
	}
	return out
}

func (p *process) wantAlert(kind alert.Kind, what string, fits func(alert.Alert) bool) alert.Alert {
	p.n.t.Helper()
	var found alert.Alert
	eventually(p.n.t, 10*time.Second, "alert "+what, func() error {
		all := p.alertsOf(kind)
		for _, a := range all {
			if fits(a) {
				found = a
				return nil
			}
		}
		return fmt.Errorf("not among %+v", all)
	})
	return found
}

func (p *process) apply(mode string, files ...api.File) api.ApplyResult {
	p.n.t.Helper()
	r, err := p.client.Apply(ctx, api.ApplyRequest{Files: files, Mode: mode})
	p.n.must(err)
	return r
}

func (p *process) mode(service, mode string) api.ServiceMode {
	p.n.t.Helper()
	m, err := p.client.SetMode(ctx, api.ServiceMode{Service: service, Mode: mode})
	p.n.must(err)
	return m
}

// TestMainJob is the whole job: learn, generate, apply, alert, enforce, with real packets.
func TestMainJob(t *testing.T) {
	n := newNode(t)
	d := n.start()
	web, cart, db := n.pod("web-1"), n.pod("cart-1"), n.pod("db-1")
	d.add(web, cart, db)
	cart.serve(8080)
	db.serve(5432)

	// learn
	for _, err := range []error{web.reaches(cart.v4, 8080), web.reaches(cart.v6, 8080), cart.reaches(db.v4, 5432), cart.asks(db.v4, 5432)} {
		n.must(err)
	}
	eventually(t, 5*time.Second, "edges learned", func() error {
		e := d.edges()
		for _, want := range []string{"shop/web shop/cart TCP/8080", "shop/cart shop/db TCP/5432", "shop/cart shop/db UDP/5432"} {
			if e[want].Count == 0 {
				return fmt.Errorf("%s is not among %v", want, e)
			}
		}
		if len(e) != 3 {
			return fmt.Errorf("%d edges: %v", len(e), e)
		}
		return nil
	})

	// generate, and preview: it breaks nothing that was seen
	yaml, err := d.client.Generate(ctx, "", "", "native")
	n.must(err)
	file := api.File{Name: "generated.yaml", Data: yaml}
	preview, err := d.client.Preview(ctx, api.ApplyRequest{Files: []api.File{file}, Mode: "enforce"})
	if err != nil || len(preview.Breaks) != 0 || len(preview.Created) != 3 {
		t.Fatalf("preview %+v, %v of\n%s", preview, err, yaml)
	}

	// alert: what is not in the policy passes and is told
	if r := d.apply("alert", file); r.Workloads != 3 || len(r.Created) != 3 {
		t.Fatalf("applied: %+v", r)
	}
	n.must(web.reaches(db.v4, 5432))
	a := d.wantAlert(alert.DeniedBy, "in mode alert", func(a alert.Alert) bool { return a.Verdict.String() == "alert" })
	if a.Client.Workload != "shop/web-1" || a.Server.Service != "shop/db" || a.Port != 5432 {
		t.Errorf("alert %+v", a)
	}
	n.must(web.reaches(cart.v4, 8080))

	// enforce: what was learned goes on, the rest does not
	open, err := web.dial(db.v4, 5432, time.Second)
	n.must(err)
	if m := d.mode("*", "enforce"); m.Workloads != 3 {
		t.Errorf("mode: %+v", m)
	}
	if err := web.reaches(db.v4, 5432); err == nil {
		t.Error("web reaches db, which no policy allows")
	}
	for _, err := range []error{web.reaches(cart.v4, 8080), web.reaches(cart.v6, 8080), cart.reaches(db.v4, 5432), cart.asks(db.v4, 5432)} {
		if err != nil {
			t.Errorf("learned connection fails in enforce: %v", err)
		}
	}
	n.must(open.SetDeadline(time.Now().Add(time.Second)))
	if _, err := open.Write([]byte("x")); err == nil {
		if _, err = open.Read(make([]byte, 1)); err == nil {
			t.Error("a connection from before enforce goes on")
		}
	}
	d.wantAlert(alert.DeniedBy, "in mode enforce", func(a alert.Alert) bool {
		return a.Verdict.String() == "deny" && a.Client.Workload == "shop/web-1" && a.Server.Service == "shop/db"
	})

	x, err := d.client.Explain(ctx, api.ExplainRequest{Client: "shop/web", Server: "shop/db", Protocol: "TCP", Port: 5432})
	if err != nil || x.Verdict != "deny" || x.Policy != "deny" || x.Egress.Mode != "enforce" || x.Egress.Fix == nil || x.Ingress.Fix == nil {
		t.Errorf("explain %+v, %v", x, err)
	}
	if x, err = d.client.Explain(ctx, api.ExplainRequest{Client: "shop/web-1", Server: cart.v4.String(), Protocol: "TCP", Port: 8080}); err != nil || x.Verdict != "allow" || x.Seen == nil {
		t.Errorf("explain %+v, %v", x, err)
	}
	rules, err := d.client.Rules(ctx, "shop/cart-1", true)
	if err != nil || !strings.Contains(rules, "# shop/web-1") || !strings.Contains(rules, "table netdev bulkhead-veth2") {
		t.Errorf("rules: %v\n%s", err, rules)
	}
	// A node's probe passes, whatever the policies say.
	if err := in(n.ns, func() error { return reachFrom(cart) }); err != nil {
		t.Errorf("the node's probe: %v", err)
	}
	log, err := os.ReadFile(filepath.Join(n.dir, "alerts.jsonl"))
	if err != nil || !strings.Contains(string(log), `"kind":"denied"`) {
		t.Errorf("alert log: %v %s", err, log)
	}
}

// TestBadPolicyFile: a file that somebody breaks changes nothing in force, and status says where.
func TestBadPolicyFile(t *testing.T) {
	n := newNode(t)
	file := filepath.Join(n.dir, "policies", "deny.yaml")
	good := "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: cart, namespace: shop}\n" +
		"spec:\n  podSelector: {matchLabels: {app: cart}}\n  policyTypes: [Ingress]\n"
	n.must(os.WriteFile(file, []byte(good), 0o600))
	d := n.start("defaultMode: enforce")
	web, cart := n.pod("web-1"), n.pod("cart-1")
	d.add(web, cart)
	cart.serve(80)
	if err := web.reaches(cart.v4, 80); err == nil {
		t.Fatal("the folder's policy is not in force")
	}
	check := func(when string) {
		t.Helper()
		eventually(t, 5*time.Second, when, func() error {
			s, err := d.client.Status(ctx)
			if err != nil {
				return err
			}
			if len(s.PolicyErrors) != 1 || !strings.HasPrefix(s.PolicyErrors[0], file+":5:3: ") || s.Policies != 1 {
				return fmt.Errorf("%d policies, errors %q", s.Policies, s.PolicyErrors)
			}
			return nil
		})
		if err := web.reaches(cart.v4, 80); err == nil {
			t.Errorf("%s: the last good policy is not in force any more", when)
		}
	}
	n.must(os.WriteFile(file, []byte(strings.Replace(good, "podSelector", "podSelektor", 1)), 0o600))
	check("broken file")
	d.kill()
	d = n.start("defaultMode: enforce") // its good text is nowhere but in the store
	check("broken file after a restart")

	n.must(os.WriteFile(file, []byte(strings.Replace(good, "policyTypes: [Ingress]", "policyTypes: [Ingress]\n  ingress: [{}]", 1)), 0o600))
	eventually(t, 5*time.Second, "repaired file", func() error { return web.reaches(cart.v4, 80) })
	n.must(os.Remove(file))
	eventually(t, 5*time.Second, "removed file", func() error {
		list, err := d.client.Policies(ctx)
		if err == nil && len(list) != 0 {
			err = fmt.Errorf("policies %+v", list)
		}
		return err
	})
}

// TestInventory: labels that come late take force, and other nodes' pods are known.
func TestInventory(t *testing.T) {
	n := newNode(t)
	d := n.start("defaultMode: enforce")
	web, cart := n.pod("web-1"), n.pod("cart-1")
	for _, p := range []*pod{web, cart} {
		req := p.request("ADD")
		req.Labels = nil
		d.cni(req)
	}
	cart.serve(80)
	d.apply("", api.File{Name: "p.yaml", Data: `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: cart, namespace: shop}
spec:
  podSelector: {matchLabels: {app: cart}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: http}]}]
`})
	n.must(web.reaches(cart.v4, 80)) // nobody is selected yet
	manifest := func(name, app string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: shop, labels: {app: %s}}\n"+
			"spec: {nodeName: %s, containers: [{name: c, ports: [{name: http, containerPort: 80}]}]}\n---\n", name, app, n.name)
	}
	file := filepath.Join(n.dir, "inventory", "pods.yaml")
	n.must(os.WriteFile(file, []byte(manifest("cart-1", "cart")), 0o600))
	eventually(t, 5*time.Second, "cart is selected", func() error {
		if web.reaches(cart.v4, 80) == nil {
			return errNot
		}
		return nil
	})
	n.must(os.WriteFile(file, []byte(manifest("cart-1", "cart")+manifest("web-1", "web")), 0o600))
	eventually(t, 5*time.Second, "web is allowed", func() error { return web.reaches(cart.v4, 80) })
	rows, err := d.client.Workloads(ctx)
	n.must(err)
	if len(rows) != 2 || rows[0].Service != "shop/cart" || rows[1].Service != "shop/web" || !rows[0].Guarded || rows[0].Error != "" {
		t.Errorf("workloads %+v", rows)
	}
}
