package firewall

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// fates sends a probe and says in one line what became of it.
func fates(t testing.TB, from, to *testWorkload, p Probe) (string, [stages]Step) {
	t.Helper()
	var dest *Namespace
	if to != nil {
		dest = to.ns
	}
	tr, err := OpenTrace(from.ns, dest, p)
	if err != nil {
		t.Fatal(err)
	}
	steps, sent, err := tr.Run(context.Background())
	if err != nil || sent != nil {
		t.Errorf("trace: %v; sent: %v", err, sent)
	}
	if err := tr.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	var out []string
	for _, s := range steps {
		out = append(out, s.Fate.String())
	}
	return strings.Join(out, ", "), steps
}

func probeTo(from, to *testWorkload, v6 bool, proto identity.Protocol) Probe {
	p := Probe{Client: from.addr(v6), Server: to.addr(v6), Protocol: proto, Port: 80}
	switch proto {
	case identity.UDP:
		p.Port = 53
	case identity.ICMP:
		p.Port = 0
		if v6 {
			p.Protocol = identity.ICMPv6
		}
	}
	return p
}

// TestTrace sends probes through every place, and stops them in each.
func TestTrace(t *testing.T) {
	node := newTestNode(t)
	client, server := node.workload(t), node.workload(t)
	server.serve(t, 80, 53)
	closed := both(egress(), ingress())
	rows := []struct {
		name           string
		client, server policy.Sides
		mode           policy.Mode
		want           string
		stage          Stage
		rule           string // part of what decided there
		alerted        bool
	}{
		{"open", policy.Sides{}, policy.Sides{}, policy.Enforce, "pass, pass, pass, pass", AtServer, "goto in", false},
		{"allowed", both(egress(allows(server)...), ingress()), both(egress(), ingress(allows(client)...)), policy.Enforce, "pass, pass, pass, pass", AtServer, "@ingress", false},
		{"allowed: at the client", both(egress(allows(server)...), ingress()), policy.Sides{}, policy.Enforce, "pass, pass, pass, pass", AtClient, "@egress", false},
		{"closed client", closed, policy.Sides{}, policy.Enforce, "drop, not reached, not reached, not reached", AtClient, "@denied_out", false},
		{"closed server", policy.Sides{}, closed, policy.Enforce, "pass, pass, pass, drop", AtServer, "@denied_in", false},
		{"denied", denyOut(policy.Sides{}, everything(server)...), policy.Sides{}, policy.Enforce, "drop, not reached, not reached, not reached", AtClient, "@denied_out", false},
		{"alert", policy.Sides{}, closed, policy.AlertMode, "pass, pass, pass, pass", AtServer, "", true},
		{"learn", closed, closed, policy.Learn, "pass, pass, pass, pass", AtClient, "goto out", false},
	}
	eachGuarded(t, []*testWorkload{client, server}, func(t *testing.T) {
		for _, row := range rows {
			client.apply(t, row.mode, row.client)
			server.apply(t, row.mode, row.server)
			for _, v6 := range []bool{false, true} {
				for _, proto := range []identity.Protocol{identity.TCP, identity.UDP, identity.ICMP} {
					t.Run(fmt.Sprintf("%s/%s/%s", row.name, familyName(v6), proto), func(t *testing.T) {
						got, steps := fates(t, client, server, probeTo(client, server, v6, proto))
						if got != row.want {
							t.Errorf("got %s, want %s; %+v", got, row.want, steps)
						}
						s := steps[row.stage]
						if !strings.Contains(s.Rule, row.rule) || s.Table != "inet bulkhead" || s.Alerted != row.alerted {
							t.Errorf("%s: %+v; want a rule with %q, alerted %v", row.stage, s, row.rule, row.alerted)
						}
					})
				}
			}
			for _, w := range []*testWorkload{client, server} {
				if err := w.ns.Check(); err != nil {
					t.Error(err)
				}
			}
		}
		for _, path := range []string{node.path, client.path, server.path} {
			if out := testIn(t, path, "nft", "list", "tables"); strings.Contains(out, TraceTable) {
				t.Errorf("left behind: %s", out)
			}
		}
	})
}
