package daemon

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
)

// trace sends a probe, and gives fates and predictions as "pass drop" and so on.
func (p *process) trace(r api.TraceRequest) (api.Trace, string) {
	p.n.t.Helper()
	got, err := p.client.Trace(ctx, r)
	p.n.must(err)
	var out []string
	for _, s := range got.Steps {
		out = append(out, s.Fate)
	}
	return got, strings.Join(out, ", ")
}

// TestTrace proves what explain predicts, and leaves nothing behind that was learned or alerted.
func TestTrace(t *testing.T) {
	n := newNode(t)
	d := n.start()
	web, cart, db := n.pod("web-1"), n.pod("cart-1"), n.pod("db-1")
	d.add(web, cart, db)
	cart.serve(8080)
	db.serve(5432)
	n.must(cart.reaches(db.v4, 5432))
	eventually(t, 5*time.Second, "edge learned", func() error {
		if e := d.edges(); e["shop/cart shop/db TCP/5432"].Count == 0 {
			return fmt.Errorf("not among %v", e)
		}
		return nil
	})
	yaml, err := d.client.Generate(ctx, "", "", "native")
	n.must(err)
	d.apply("enforce", api.File{Name: "generated.yaml", Data: yaml})
	alerts := len(d.alertsOf(""))
	for _, row := range []struct {
		client, server, protocol string
		port                     uint16
		want, because            string // of the place that decided
	}{
		{"shop/cart-1", "shop/db-1", "TCP", 5432, "pass, pass, pass, pass", "shop/db ingress[0]"},
		{"shop/cart-1", "shop/db", "TCP", 81, "drop, not reached, not reached, not reached", ""},
		{"shop/web-1", "shop/db-1", "TCP", 5432, "pass, pass, pass, drop", ""},
		{"shop/web-1", "shop/db-1", "UDP", 5432, "pass, pass, pass, drop", ""},
		{"shop/web-1", "shop/db-1", "ICMPv6", 128, "pass, pass, pass, drop", ""},
		{"shop/web-1", db.v6.String(), "TCP", 5432, "pass, pass, pass, drop", ""},
	} {
		got, fates := d.trace(api.TraceRequest{Client: row.client, Server: row.server, Protocol: row.protocol, Port: row.port})
		if fates != row.want || !got.Agrees {
			t.Errorf("%s → %s %s/%d: %s, want %s: %+v", row.client, row.server, row.protocol, row.port, fates, row.want, got)
		}
		if row.because != "" && got.Steps[3].Policy != row.because {
			t.Errorf("%s → %s: because of %q, want %q", row.client, row.server, got.Steps[3].Policy, row.because)
		}
	}
	for _, bad := range []api.TraceRequest{
		{Client: "shop/nobody", Server: "shop/db-1", Protocol: "TCP", Port: 1}, {Client: "node", Server: "shop/db-1", Protocol: "TCP", Port: 1},
		{Client: "shop/db-1", Server: "shop/db-1", Protocol: "TCP", Port: 1}, {Client: "shop/web-1", Server: "shop/db-1", Protocol: "ICMP", Port: 3},
		{Client: "shop/web-1", Server: "shop/db-1", Protocol: "SCTP", Port: 1},
	} {
		if got, err := d.client.Trace(ctx, bad); err == nil {
			t.Errorf("%+v: no error, but %+v", bad, got)
		}
	}
	// What is told after the probes was told after them in the kernel, too.
	n.must(cart.reaches(db.v6, 5432))
	eventually(t, 5*time.Second, "the edge seen again", func() error {
		if e := d.edges(); e["shop/cart shop/db TCP/5432"].Count < 2 {
			return fmt.Errorf("counted %d times", e["shop/cart shop/db TCP/5432"].Count)
		}
		return nil
	})
	if e := d.edges(); len(e) != 1 {
		t.Errorf("the probes taught something: %v", e)
	}
	if now := d.alertsOf(""); len(now) != alerts {
		t.Errorf("the probes raised alerts: %+v", now)
	}
}

// TestProbesAreKnown: by both directions, for as long as an answer may take, and no more of them than
// the bound.
func TestProbesAreKnown(t *testing.T) {
	now := time.Now()
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	var tr traces
	tr.add(firewall.Probe{Client: a, Server: b, Protocol: identity.UDP, Port: 53}, 4000, now)
	tr.add(firewall.Probe{Client: a, Server: b, Protocol: identity.ICMP, Port: 8}, 77, now)
	record := func(client, server netip.Addr, p identity.Protocol, from, to uint16) *flow.Record {
		return &flow.Record{Time: now, Client: client, Server: server, Protocol: p, ClientPort: from, Port: to, Event: flow.Birth}
	}
	for _, row := range []struct {
		r    *flow.Record
		want bool
	}{
		{record(a, b, identity.UDP, 4000, 53), true}, {record(b, a, identity.UDP, 53, 4000), true},
		{record(a, b, identity.UDP, 4001, 53), false}, {record(a, b, identity.TCP, 4000, 53), false},
		{record(a, b, identity.ICMP, 77, 8), true}, {record(b, a, identity.ICMP, 77, 0), true}, {record(a, b, identity.ICMP, 78, 8), false},
	} {
		if got := tr.mine(row.r); got != row.want {
			t.Errorf("%+v: ours %v, want %v", row.r, got, row.want)
		}
	}
	for range 2 * probesKept {
		tr.add(firewall.Probe{Client: b, Server: a, Protocol: identity.TCP, Port: 1}, 1, now)
	}
	if len(tr.sent) != probesKept {
		t.Errorf("%d probes are remembered, the bound is %d", len(tr.sent), probesKept)
	}
	late := record(b, a, identity.TCP, 1, 1)
	late.Time = now.Add(probeKept + time.Second)
	if tr.mine(late) || len(tr.sent) != 0 {
		t.Errorf("a probe is known for ever: %d are left", len(tr.sent))
	}
}
