package daemon

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/api"
)

// shadow is what a shadow has seen.
func (p *process) shadow(name string) api.Shadow {
	p.n.t.Helper()
	list, err := p.client.Policies(ctx)
	p.n.must(err)
	for _, x := range list {
		if x.Name == name && x.Mode == "shadow" && x.Shadow != nil {
			return *x.Shadow
		}
	}
	p.n.t.Fatalf("no shadow %s among %+v", name, list)
	return api.Shadow{}
}

// seen waits until a shadow has counted.
func (p *process) seen(name string, fits func(s api.Shadow) bool) api.Shadow {
	p.n.t.Helper()
	var s api.Shadow
	eventually(p.n.t, 15*time.Second, "what shadow "+name+" has seen", func() error {
		if s = p.shadow(name); !fits(s) {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	return s
}

// TestShadow: a policy and an edit of one are judged beside what is in force, deny nothing, and say what
// they would do.
func TestShadow(t *testing.T) {
	n := newNode(t)
	d := n.start("defaultMode: enforce")
	web, ad, cart := n.pod("web-1"), n.pod("ad-1"), n.pod("cart-1")
	d.add(web, ad, cart)
	cart.serve(8080)
	d.do(api.ApplyRequest{Files: []api.File{allowing("cart", "web")}})
	r := d.do(api.ApplyRequest{Files: []api.File{allowing("cart", "ad")}, Shadow: true})
	if strings.Join(r.Created, " ") != "NetworkPolicy shop/cart (shadow)" {
		t.Errorf("applied %+v", r)
	}
	d.wantRows("an edit as a shadow", "cart=web cart=ad?")
	for range 5 {
		d.wantReach("shadow", web, cart, 8080, true)
		_, _ = ad.dial(cart.v4, 8080, 20*time.Millisecond)
	}
	s := d.seen("cart", func(s api.Shadow) bool { return s.Denied >= 5 && s.Opened > 0 })
	if len(s.Edges) != 2 || s.Passed != 0 || s.Refused != 0 {
		t.Errorf("seen %+v", s)
	}
	for _, e := range s.Edges {
		switch {
		case e.Client == "shop/web" && e.Server == "shop/cart" && e.Port == 8080 && e.Verdict == "deny" && e.Direction == "ingress" && e.Count >= 5 &&
			e.Examples[0] == "shop/web-1 (10.88.0.2) → shop/cart-1 (10.88.0.4)" && strings.Contains(e.Reason, "none of 1 ingress rules allows from shop/web-1"):
		case e.Client == "shop/ad" && e.Verdict == "allow":
		default:
			t.Errorf("edge %+v", e)
		}
	}
	a := d.wantAlert(alert.Shadow, "of the shadow", func(alert.Alert) bool { return true })
	if a.Severity != alert.Low || a.Client.Workload != "shop/web-1" || a.Verdict.String() != "allow" || a.Breaks != "shadow NetworkPolicy shop/cart" {
		t.Errorf("alert %+v", a)
	}
	status, err := d.client.Status(ctx)
	n.must(err)
	if status.Counters.WouldDeny != 0 || status.Shadows != 1 || status.Policies != 1 {
		t.Errorf("status %+v", status)
	}

	// Evidence outlives the daemon; another text begins anew; a delete of the shadow leaves what is in force.
	eventually(t, 5*time.Second, "stored", func() error { time.Sleep(2 * shadowBeat); return nil })
	d.kill()
	d = n.start("defaultMode: enforce")
	if again := d.shadow("cart"); again.Denied < s.Denied || len(again.Edges) != 2 || !again.Since.Equal(s.Since) {
		t.Errorf("after a crash %+v, was %+v", again, s)
	}
	d.do(api.ApplyRequest{Files: []api.File{allowing("cart", "db")}, Shadow: true})
	if again := d.shadow("cart"); again.Denied+again.Opened != 0 || len(again.Edges) != 0 {
		t.Errorf("of another text: %+v", again)
	}
	d.do(api.ApplyRequest{Do: api.DoDelete, Shadow: true, Names: []api.PolicyName{{Name: "cart"}}})
	d.wantRows("the shadow deleted", "cart=web")
	d.do(api.ApplyRequest{Files: []api.File{allowing("cart", "ad")}, Shadow: true})
	if r := d.do(api.ApplyRequest{Files: []api.File{allowing("cart", "db")}}); len(r.Removed) != 1 || len(r.Changed) != 1 {
		t.Errorf("put in force: %+v", r)
	}
	d.wantRows("a shadow ends with what is put in force", "cart=db")

	// Said again, what is in force leaves its shadow alone. Pruning as shadows takes only shadows; a
	// policy whose shadow is in the files stays.
	d.do(api.ApplyRequest{Files: []api.File{allowing("cart", "ad"), allowing("old", "ad")}, Shadow: true})
	d.do(api.ApplyRequest{Files: []api.File{allowing("cart", "db")}})
	d.wantRows("said again", "cart=db cart=ad? old=ad?")
	d.do(api.ApplyRequest{Files: []api.File{allowing("cart", "ad")}, Shadow: true, Prune: true})
	d.wantRows("pruned as shadows", "cart=db cart=ad?")
	marked := allowing("cart", "ad")
	marked.Data = strings.Replace(marked.Data, "name: cart,", "annotations: {bulkhead.dev/mode: shadow}, name: cart,", 1)
	d.do(api.ApplyRequest{Files: []api.File{marked}, Prune: true})
	d.wantRows("pruned", "cart=db cart=ad?")
	d.do(api.ApplyRequest{Files: []api.File{allowing("new", "ad")}, Prune: true})
	d.wantRows("pruned of both", "new=ad")
}

// TestPromote: a shadow takes force on evidence only, by itself where it was told to, or because a
// person says so.
func TestPromote(t *testing.T) {
	n := newNode(t)
	config := []string{"defaultMode: enforce", "promoteConnections: 6", "promoteAge: 1s"}
	d := n.start(config...)
	web, bad, cart := n.pod("web-1"), n.pod("bad-1"), n.pod("cart-1")
	d.add(web, bad, cart)
	cart.serve(8080)
	promote := api.ApplyRequest{Do: api.DoPromote, Names: []api.PolicyName{{Namespace: "shop", Name: "cart"}}}
	d.refuses(promote, api.NotFound, "policy shop/cart: no shadow of it")
	d.do(api.ApplyRequest{Files: []api.File{allowing("cart", "web")}, Shadow: true})
	n.must(bad.reaches(cart.v4, 8080))
	n.must(web.reaches(cart.v4, 8080))
	d.seen("cart", func(s api.Shadow) bool { return s.Denied == 1 && s.Passed == 1 })
	d.refuses(promote, api.Conflict, "stays a shadow", "1 of 6 connections would pass so far", "no workload of shop/cart has started since it was applied",
		"it would deny shop/bad → shop/cart TCP/8080 (x1, ", "--now")

	// Another policy lets bad in: what was seen of it does not speak against the shadow any more.
	d.do(api.ApplyRequest{Files: []api.File{allowing("bad", "bad")}})
	d.do(api.ApplyRequest{Files: []api.File{allowing("web", "web")}})
	late := n.pod("cart-2")
	late.serve(8080)
	d.add(late)
	for range 8 {
		n.must(web.reaches(late.v4, 8080))
		n.must(web.reaches(cart.v4, 8080))
	}
	eventually(t, 20*time.Second, "nothing but the steady phase is missing", func() error {
		_, err := d.client.Apply(ctx, promote)
		want := "NetworkPolicy shop/cart stays a shadow: no connection of a workload was seen that ran longer than 1m0s; to put it in force all the same: --now"
		if err == nil || err.Error() != want {
			return fmt.Errorf("%v", err)
		}
		return nil
	})
	promote.Now = true
	if r := d.do(promote); strings.Join(append(r.Created, r.Removed...), ", ") != "NetworkPolicy shop/cart, NetworkPolicy shop/cart (shadow)" {
		t.Errorf("promoted %+v", r)
	}
	d.wantRows("now", "bad=bad cart=web web=web")
	d.do(api.ApplyRequest{Do: api.DoDelete, Names: []api.PolicyName{{Name: "bad"}, {Name: "cart"}, {Name: "web"}}})

	// By itself. The workloads are older than their first minute by now.
	d.kill()
	store, err := OpenStore(filepath.Join(n.dir, "state"))
	n.must(err)
	old, err := store.Workloads()
	n.must(err)
	for _, w := range old {
		w.Since = w.Since.Add(-time.Hour)
		n.must(store.PutWorkload(w))
	}
	n.must(store.Close())
	d = n.start(config...)
	file := allowing("cart", "web")
	file.Data = strings.Replace(file.Data, "name: cart,", "annotations: {bulkhead.dev/mode: shadow}, name: cart,", 1)
	d.do(api.ApplyRequest{Files: []api.File{file}, Shadow: true})
	promote.Now, promote.After = false, 9
	if _, err := d.client.Preview(ctx, promote); err != nil || d.shadow("cart").After != 0 {
		t.Errorf("a preview armed it: %v", err)
	}
	if r := d.do(promote); len(r.Missing) == 0 || len(r.Created) != 0 {
		t.Errorf("armed: %+v", r)
	}
	d.kill() // it stays armed
	d = n.start(config...)
	third := n.pod("cart-3")
	third.serve(8080)
	d.add(third)
	for range 5 {
		n.must(web.reaches(third.v4, 8080))
		n.must(web.reaches(cart.v4, 8080))
	}
	eventually(t, 20*time.Second, "in force by itself", func() error {
		if rows := d.rows(); rows != "cart=web" {
			return fmt.Errorf("%s: %+v", rows, d.shadow("cart"))
		}
		return nil
	})
	eventually(t, 5*time.Second, "the workloads hold it", func() error {
		if bad.reaches(cart.v4, 8080) == nil {
			return errNot
		}
		return nil
	})
	d.wantReach("promoted", web, cart, 8080, true)
	list, err := d.client.Policies(ctx)
	if err != nil || !strings.Contains(list[0].YAML, "annotations: {bulkhead.dev/mode: enforce}, name: cart") {
		t.Errorf("its text: %+v, %v", list, err)
	}
	h, err := d.client.History(ctx, 1)
	if err != nil || h[0].Cause != "promoted on evidence of 10 connections" || h[0].Who != "bulkheadd" {
		t.Errorf("history %+v, %v", h, err)
	}
}

// TestEnforcedText: the one word changes, whatever stands around it.
func TestEnforcedText(t *testing.T) {
	for text, want := range map[string]string{
		"spec:\n  mode: shadow # for now\n  podSelector: {}\n":     "spec:\n  mode: enforce # for now\n  podSelector: {}\n",
		"spec: {podSelector: {}, mode: \"shadow\"}":                "spec: {podSelector: {}, mode: \"enforce\"}",
		"spec: {é: shadow, mode: 'shadow'}":                        "spec: {é: shadow, mode: 'enforce'}",
		"metadata:\n  annotations:\n    bulkhead.dev/mode: shadow": "metadata:\n  annotations:\n    bulkhead.dev/mode: enforce",
		"{\"spec\": {\"mode\": \"shadow\"}}":                       "{\"spec\": {\"mode\": \"enforce\"}}",
		"---\n# shadow\nspec:\n  mode: shadow\n":                   "---\n# shadow\nspec:\n  mode: enforce\n",
		"spec: {mode: enforce}":                                    "spec: {mode: enforce}",
		"metadata: {name: shadow}\nspec: {}":                       "metadata: {name: shadow}\nspec: {}",
		"spec:\n  mode: &m shadow\n  x: *m\n":                      "spec:\n  mode: &m enforce\n  x: *m\n",
	} {
		if got, err := enforcedText(text); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
}
