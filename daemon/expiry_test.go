package daemon

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// quiet is a daemon without kernel and socket, whose clock the test sets: Run's first half.
func quiet(t *testing.T, dir string, now *time.Time) *Daemon {
	t.Helper()
	cfg := DefaultConfig()
	cfg.StateDir, cfg.PolicyDir, cfg.InventoryDir, cfg.AlertLog = dir, filepath.Join(dir, "policies"), "", ""
	d := New(cfg, slog.New(slog.DiscardHandler))
	d.now = func() time.Time { return *now }
	d.store = openStore(t, dir)
	d.alerts = alert.NewDispatcher(&alert.Judge{}, &alert.Folder{}, nil, d.ring)
	for i, name := range []string{"web-1", "cart-1"} {
		app := strings.TrimSuffix(name, "-1")
		d.index.Upsert(identity.Workload{ID: name, Namespace: "shop", Name: name, Labels: identity.Labels{"app": app},
			Service: identity.Service{Namespace: "shop", Name: app}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 88, 0, byte(2 + i)})},
			Local: true, Source: identity.SourceCNI, Since: *now})
	}
	if err := d.restoreState(); err != nil {
		t.Fatal(err)
	}
	return d
}

// webReachesCart is what policy says of it.
func (d *Daemon) webReachesCart() policy.Verdict {
	view := d.index.View()
	return d.rules.Load().set.Evaluate(view, policy.Connection{Client: podPeer(view.Find("shop", "web-1")), Server: podPeer(view.Find("shop", "cart-1")),
		Protocol: identity.TCP, Port: 8080}).Verdict
}

// told ends the dispatcher's work, and gives the alerts.
func (d *Daemon) told(t *testing.T) []alert.Alert {
	t.Helper()
	life, end := context.WithCancel(ctx)
	end()
	d.alerts.Run(life) // sends what is queued, and returns
	raw, err := d.Alerts(ctx, string(alert.Expired), 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []alert.Alert
	for _, r := range raw {
		var a alert.Alert
		if err := json.Unmarshal(r, &a); err != nil {
			t.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}

const untilNoon = `
apiVersion: bulkhead.dev/v1alpha1
kind: Policy
metadata: {name: cart, namespace: shop}
spec:
  podSelector: {matchLabels: {app: cart}}
  ingress:
  - name: migration
    from: [{podSelector: {matchLabels: {app: web}}}]
    expires: 2026-03-02T12:00:00Z
`

// TestExpiryAndClock: what holds is what the policies say of the time that it is, however the clock got
// there; what ended is told once, also after a restart.
func TestExpiryAndClock(t *testing.T) {
	dir := t.TempDir()
	morning := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	now := morning
	d := quiet(t, dir, &now)
	if _, err := d.Apply(ctx, api.ApplyRequest{Files: []api.File{{Name: "cart.yaml", Data: untilNoon}}}); err != nil {
		t.Fatal(err)
	}
	check := func(when string, at time.Time, want policy.Verdict) {
		t.Helper()
		now = at
		d.lookAtClock(ctx)
		if got := d.webReachesCart(); got != want {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	check("before", morning.Add(3*time.Hour), policy.Allow)
	status, err := d.Status(ctx)
	if err != nil || len(status.Expiring) != 1 || status.Expiring[0] != "rule shop/cart ingress[0] (migration) of Policy shop/cart ends in 1h0m0s, at 2026-03-02T12:00:00Z" {
		t.Errorf("status: %q, %v", status.Expiring, err)
	}
	check("at the very time", morning.Add(4*time.Hour), policy.Deny)
	check("the clock was set back", morning.Add(time.Hour), policy.Allow)
	check("the clock jumped ahead", morning.Add(1000*time.Hour), policy.Deny)
	check("the clock came back", morning.Add(5*time.Hour), policy.Deny)
	list, err := d.Policies(ctx)
	if err != nil || list[0].Expires != nil || len(list[0].Expired) != 1 || list[0].Expired[0] != "shop/cart ingress[0] (migration)" {
		t.Errorf("policies: %+v, %v", list, err)
	}
	alerts := d.told(t)
	if len(alerts) == 0 || alerts[0].Severity != alert.Low || alerts[0].Reason != "rule shop/cart ingress[0] (migration) of Policy shop/cart ended at 2026-03-02T12:00:00Z, as it says itself" {
		t.Errorf("alerts: %+v", alerts)
	}

	// A machine that starts with a clock in the past: the newest generation's time counts.
	if _, err := d.Apply(ctx, api.ApplyRequest{Files: []api.File{{Name: "b.yaml", Data: allowing("b", "nobody").Data}}}); err != nil {
		t.Fatal(err)
	}
	if err := d.store.Close(); err != nil {
		t.Fatal(err)
	}
	now = time.Unix(0, 0)
	d = quiet(t, dir, &now)
	if got := d.webReachesCart(); got != policy.Deny {
		t.Errorf("with a clock in the past: %v", got)
	}
	d.lookAtClock(ctx)
	if status, err := d.Status(ctx); err != nil || !strings.Contains(strings.Join(status.Warnings, "\n"), "before the newest change of policies") {
		t.Errorf("warnings %q, %v", status.Warnings, err)
	}
	if alerts := d.told(t); len(alerts) != 0 {
		t.Errorf("told again: %+v", alerts)
	}
}

// TestExpiredWhileAway: what ended while no daemon ran is told by the next one.
func TestExpiredWhileAway(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	d := quiet(t, dir, &now)
	if _, err := d.Apply(ctx, api.ApplyRequest{Files: []api.File{{Name: "cart.yaml", Data: untilNoon}}}); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if err := d.store.Close(); err != nil {
			t.Fatal(err)
		}
		now = now.Add(10 * time.Hour)
		d = quiet(t, dir, &now)
		if got := d.webReachesCart(); got != policy.Deny {
			t.Errorf("after the start: %v", got)
		}
		d.lookAtClock(ctx)
		if alerts := d.told(t); len(alerts) != 1-i {
			t.Errorf("start %d: %+v", i, alerts)
		}
	}
}
