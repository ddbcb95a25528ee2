package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/cni"
)

// TestVolumes: repeats that the kernel folded are counted, also those of what was denied.
func TestVolumes(t *testing.T) {
	n := newNode(t)
	d := n.start("defaultMode: enforce")
	web, cart, bad := n.pod("web-1"), n.pod("cart-1"), n.pod("bad-1")
	d.add(web, cart, bad)
	cart.serve(8080)
	d.apply("", api.File{Name: "cart.yaml", Data: cartOnly})
	for range 7 {
		n.must(web.reaches(cart.v4, 8080))
		_, _ = bad.dial(cart.v4, 8080, 20*time.Millisecond)
	}
	d.cni(cart.request("DEL")) // reads the counters a last time
	e := d.edges()["shop/web shop/cart TCP/8080"]
	if e.Count != 7 || e.Bytes == 0 {
		t.Errorf("edge %+v", e)
	}
	if e := d.edges()["shop/bad shop/cart TCP/8080"]; e.Count != 0 || e.Denied < 7 {
		t.Errorf("denied edge %+v", e)
	}
}

// TestVIP: what goes through a Service is learned for its backends.
func TestVIP(t *testing.T) {
	n := newNode(t)
	n.must(os.WriteFile(filepath.Join(n.dir, "inventory", "svc.yaml"), []byte(`
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.7, selector: {app: cart}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-1, namespace: shop, labels: {app: cart}}
spec: {containers: [{name: c}]}
`), 0o600))
	d := n.start()
	web, cart := n.pod("web-1"), n.pod("cart-1")
	d.add(web, cart)
	cart.serve(8080)
	n.nat("ip", "10.96.0.7", 80, cart.v4.String(), 8080)
	h := web.handle()
	defer h.Close()
	route(t, h, "10.88.0.1")
	h2 := cart.handle()
	defer h2.Close()
	route(t, h2, "10.88.0.1")
	n.must(web.reaches(mustAddr("10.96.0.7"), 80))
	eventually(t, 5*time.Second, "edge to the backend", func() error {
		all := d.edges()
		e := all["shop/web shop/cart TCP/8080"]
		if e.Count != 1 || e.VIP != "10.96.0.7:80" || len(all) != 1 {
			return fmt.Errorf("%+v", all)
		}
		return nil
	})
	yaml, err := d.client.Generate(ctx, "", "", "")
	n.must(err)
	d.apply("enforce", api.File{Name: "g.yaml", Data: yaml})
	if err := web.reaches(mustAddr("10.96.0.7"), 80); err != nil {
		t.Errorf("through the VIP in enforce: %v\n%s", err, yaml)
	}
	x, err := d.client.Explain(ctx, api.ExplainRequest{Client: "shop/web", Server: "10.96.0.7", Protocol: "TCP", Port: 80})
	if err != nil || x.Verdict != "allow" || x.Seen == nil || !strings.Contains(strings.Join(x.Notes, "\n"), "behind service shop/cart: shop/cart-1 TCP/8080") {
		t.Errorf("explain %+v %v", x, err)
	}
}

// TestPending: what the plugin let through while no daemon ran is adopted, and alerted.
func TestPending(t *testing.T) {
	n := newNode(t)
	web := n.pod("web-1")
	j := cni.Journal{Dir: cni.PendingDir(filepath.Join(n.dir, "api.sock"))}
	n.must(j.Add(cni.Pending{Time: time.Now(), Cause: "connection refused", Request: web.request("ADD")}))
	gone := web.request("ADD")
	gone.ContainerID, gone.NetNS = "gone", "/run/netns/gone"
	n.must(j.Add(cni.Pending{Time: time.Now(), Cause: "connection refused", Request: gone}))
	d := n.start()
	rows, err := d.client.Workloads(ctx)
	if err != nil || len(rows) != 1 || rows[0].StartSeen || rows[0].Error != "" {
		t.Errorf("adopted %+v, %v", rows, err)
	}
	d.wantAlert(alert.Tamper, "ran without rules", func(a alert.Alert) bool {
		return a.Client.Workload == "shop/web-1" && strings.Contains(a.Reason, "ran without rules")
	})
	if list, err := j.List(); err != nil || len(list) != 0 {
		t.Errorf("journal holds %+v, %v", list, err)
	}
}

// TestPolicyConflicts: one policy has one owner, and a request is taken whole or not at all.
func TestPolicyConflicts(t *testing.T) {
	n := newNode(t)
	file := filepath.Join(n.dir, "policies", "cart.yaml")
	n.must(os.WriteFile(file, []byte(cartOnly), 0o600))
	d := n.start()
	apply := func(files ...api.File) error {
		_, err := d.client.Apply(ctx, api.ApplyRequest{Files: files})
		return err
	}
	other := strings.Replace(cartOnly, "name: cart", "name: other", 1)
	if err := apply(api.File{Name: "mine.yaml", Data: cartOnly}); !api.HasCode(err, api.Conflict) || !strings.Contains(err.Error(), "NetworkPolicy shop/cart is held by "+file) {
		t.Errorf("a policy of the folder: %v", err)
	}
	if err := apply(api.File{Name: "o.yaml", Data: other}, api.File{Name: "bad.yaml", Data: "kind: Policy\n"}); !api.HasCode(err, api.BadRequest) || !strings.Contains(err.Error(), "bad.yaml:1:1:") {
		t.Errorf("one of two files is bad: %v", err)
	}
	list, err := d.client.Policies(ctx)
	if err != nil || len(list) != 1 || list[0].Source != file {
		t.Errorf("policies %+v, %v", list, err)
	}
	n.must(apply(api.File{Name: "o.yaml", Data: other}))
	if r := d.apply("", api.File{Name: "o.yaml", Data: other}); len(r.Unchanged) != 1 {
		t.Errorf("the same again: %+v", r)
	}
	// The folder may not take what the API holds.
	second := filepath.Join(n.dir, "policies", "other.yaml")
	n.must(os.WriteFile(second, []byte(other), 0o600))
	eventually(t, 5*time.Second, "conflict told", func() error {
		s, err := d.client.Status(ctx)
		if err == nil && (len(s.PolicyErrors) != 1 || !strings.Contains(s.PolicyErrors[0], "NetworkPolicy shop/other is held by api already")) {
			err = fmt.Errorf("%q", s.PolicyErrors)
		}
		return err
	})
	n.must(d.client.DeletePolicy(ctx, "", "", "other"))
	for _, c := range []struct{ kind, namespace, name, code string }{
		{"", "", "never", api.NotFound}, {"NetworkPolicy", "shop", "cart", api.Conflict},
	} {
		if err := d.client.DeletePolicy(ctx, c.kind, c.namespace, c.name); !api.HasCode(err, c.code) {
			t.Errorf("delete %s: %v", c.name, err)
		}
	}
	if _, err := d.client.SetMode(ctx, api.ServiceMode{Service: "noslash", Mode: "alert"}); !api.HasCode(err, api.BadRequest) {
		t.Errorf("mode of a bare name: %v", err)
	}
	if _, err := d.client.SetMode(ctx, api.ServiceMode{Service: "*", Mode: "loud"}); !api.HasCode(err, api.BadRequest) {
		t.Errorf("unknown mode: %v", err)
	}
}

// TestModesOfBothEnds: the stricter end wins, with real packets and in the explanation.
func TestModesOfBothEnds(t *testing.T) {
	n := newNode(t)
	d := n.start()
	web, cart := n.pod("web-1"), n.pod("cart-1")
	d.add(web, cart)
	cart.serve(8080)
	d.apply("", api.File{Name: "deny.yaml", Data: `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nothing, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
`})
	for _, c := range []struct{ client, server, want string }{
		{"learn", "learn", "allow"}, {"learn", "alert", "alert"}, {"learn", "enforce", "deny"},
		{"alert", "learn", "alert"}, {"alert", "alert", "alert"}, {"alert", "enforce", "deny"},
		{"enforce", "learn", "deny"}, {"enforce", "alert", "deny"}, {"enforce", "enforce", "deny"},
	} {
		d.mode("shop/web", c.client)
		d.mode("shop/cart", c.server)
		x, err := d.client.Explain(ctx, api.ExplainRequest{Client: "shop/web", Server: "shop/cart", Protocol: "TCP", Port: 8080})
		if err != nil || x.Verdict != c.want || x.Policy != "deny" {
			t.Errorf("%s → %s: explained as %+v, %v", c.client, c.server, x, err)
		}
		passes := web.reaches(cart.v4, 8080) == nil
		if passes != (c.want != "deny") {
			t.Errorf("%s → %s: passes %v, want %s", c.client, c.server, passes, c.want)
		}
	}
	preview, err := d.client.Preview(ctx, api.ApplyRequest{Mode: "learn", Services: []string{"*"}})
	if err != nil || len(preview.Opens) != 1 {
		t.Errorf("preview of learn: %+v, %v", preview, err)
	}
}

// TestStreams: flows and alerts can be followed.
func TestStreams(t *testing.T) {
	n := newNode(t)
	d := n.start()
	web, cart := n.pod("web-1"), n.pod("cart-1")
	d.add(web, cart)
	cart.serve(8080)
	enough := errors.New("enough")
	seen := make(chan api.Flow, 1)
	done := make(chan error, 1)
	go func() {
		done <- d.client.FollowFlows(ctx, api.FlowQuery{Service: "shop/cart", Limit: 10}, func(f api.Flow) error {
			if f.Direction == "ingress" {
				seen <- f
				return enough
			}
			return nil
		})
	}()
	n.must(web.reaches(cart.v4, 8080))
	if err := <-done; !errors.Is(err, enough) {
		t.Fatal(err)
	}
	if f := <-seen; f.Client != "shop/web" || f.Server != "shop/cart" || f.Port != 8080 || f.Workload != "shop/cart-1" || f.Verdict != "allow" {
		t.Errorf("flow %+v", f)
	}
	go func() {
		done <- d.client.FollowAlerts(ctx, "denied", 0, func(raw json.RawMessage) error { return enough })
	}()
	d.apply("enforce", api.File{Name: "cart.yaml", Data: strings.Replace(cartOnly, "app: web", "app: nobody", 1)})
	_ = web.reaches(cart.v4, 8080)
	if err := <-done; !errors.Is(err, enough) {
		t.Fatal(err)
	}
}

// TestTamper: what root in the container does to the ruleset is told at once, and does not help.
func TestTamper(t *testing.T) {
	n := newNode(t)
	d := n.start("defaultMode: enforce")
	web, cart := n.pod("web-1"), n.pod("cart-1")
	d.add(web, cart)
	cart.serve(8080)
	d.apply("", api.File{Name: "cart.yaml", Data: strings.Replace(cartOnly, "app: web", "app: nobody", 1)})
	nft := func(args ...string) error {
		return exec.Command("nsenter", append([]string{"--net=" + cart.path(), "nft"}, args...)...).Run()
	}
	n.must(nft("flush", "ruleset"))
	d.wantAlert(alert.Tamper, "flush", func(a alert.Alert) bool {
		return strings.Contains(a.Reason, "flush") && a.Client.Workload == "shop/cart-1"
	})
	if nft("delete", "table", "inet", "bulkhead") == nil {
		t.Error("root in the container deletes our table")
	}
	n.must(nft("add", "table", "inet", "evil"))
	d.wantAlert(alert.Tamper, "foreign table", func(a alert.Alert) bool {
		return strings.Contains(a.Reason, "inet evil") && strings.Contains(a.Reason, "nft")
	})
	h := cart.handle()
	defer h.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "evil0"
	n.must(h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	d.wantAlert(alert.Tamper, "interface", func(a alert.Alert) bool { return strings.Contains(a.Reason, "evil0") })
	if web.reaches(cart.v4, 8080) == nil {
		t.Error("tampering opened the workload")
	}
	for _, a := range d.alertsOf(alert.Tamper) {
		if a.Client.Workload != "shop/cart-1" || !strings.Contains(a.Reason, "our rules were not changed") {
			t.Errorf("alert %+v", a)
		}
	}

	// While the daemon is away a flush leaves its trace, and a restart raises no alert of its own.
	before := len(d.alertsOf(alert.Tamper))
	d.kill()
	d = n.start("defaultMode: enforce")
	time.Sleep(newcomerWait + 2*time.Second) // the time in which a false alert would come
	if all := d.alertsOf(alert.Tamper); len(all) > 0 {
		t.Errorf("a restart alerts: %+v (before it %d)", all, before)
	}
	d.kill()
	n.must(nft("flush", "ruleset"))
	d = n.start("defaultMode: enforce")
	d.wantAlert(alert.Tamper, "flush while away", func(a alert.Alert) bool { return strings.Contains(a.Reason, "while nobody watched") })
	if web.reaches(cart.v4, 8080) == nil {
		t.Error("a flush while the daemon was away opened the workload")
	}
}

// TestPeersKnowANewcomer: when ADD returns, those who admit the new workload hold its address, so
// that its first packet passes.
func TestPeersKnowANewcomer(t *testing.T) {
	n := newNode(t)
	d := n.start("defaultMode: enforce")
	cart := n.pod("cart-1")
	d.add(cart)
	cart.serve(8080)
	d.apply("", api.File{Name: "cart.yaml", Data: cartOnly})
	for i := range 10 {
		web := n.pod(fmt.Sprintf("web-%d", i))
		d.add(web)
		// A first SYN that is dropped comes again after a second: too late here.
		c, err := web.dial(cart.v4, 8080, 700*time.Millisecond)
		if err != nil {
			t.Fatalf("first connection of newcomer %d: %v", i, err)
		}
		c.Close()
	}
}
