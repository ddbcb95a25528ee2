package firewall

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// tracked is how many connections a namespace's connection tracking knows. Where nothing asked for
// tracking its hooks are not there, and it stays at zero whatever passes.
func tracked(t testing.TB, path string) int {
	t.Helper()
	out := testIn(t, path, "cat", "/proc/sys/net/netfilter/nf_conntrack_count")
	n, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// tracking are the expressions that register connection tracking in a namespace when a rule with one is
// loaded, whether or not a packet meets it (nf_ct_netns_get in net/netfilter/nft_*.c).
var tracking = []string{"ct", "connlimit", "ct_helper", "flow_offload", "nat", "masq", "redir", "synproxy", "notrack", "match", "socket", "tproxy"}

// TestNoTrackingExpression: no ruleset of any mode and shape has an expression that loads connection
// tracking, nor one that writes the packet mark, which meshes use.
func TestNoTrackingExpression(t *testing.T) {
	for _, g := range goldens {
		for _, table := range Compile(g.spec).Tables {
			for _, c := range table.Chains {
				for _, r := range c.Rules {
					for _, name := range tracking {
						if strings.HasPrefix(r.canon, name+"[") || strings.Contains(r.canon, "]"+name+"[") {
							t.Errorf("%s: table %s: chain %s: %q has expression %s", g.name, table.Name, c.Name, r.Text, name)
						}
					}
					if strings.Contains(r.Text, "mark") {
						t.Errorf("%s: table %s: chain %s: %q touches the mark", g.name, table.Name, c.Name, r.Text)
					}
				}
			}
		}
	}
}

// TestNoConnectionTracking: a namespace that had none gets none, in no mode and shape, while packets
// pass, are denied and are rejected; nor does the node's, where the guards are. The last row shows that
// this test would see it.
func TestNoConnectionTracking(t *testing.T) {
	node := newTestNode(t)
	client, server := node.workload(t), node.workload(t)
	server.serve(t, 80, 53)
	listed := both(egress(allows(server)...), ingress(allows(server)...))
	answers := both(egress(allows(client)...), ingress(allows(client)...))
	blocks := both(egress(allBlocks()...), ingress(allBlocks()...))
	traffic := func(t *testing.T, passes bool) {
		for _, v6 := range []bool{false, true} {
			for _, p := range probes {
				if got := p.try(client, server, v6, patience(passes)); got != passes {
					t.Errorf("%s %s: answered %v, want %v", familyName(v6), p.name, got, passes)
				}
			}
		}
	}
	for _, guarded := range []bool{true, false} {
		if !guarded {
			for _, w := range []*testWorkload{client, server} {
				if err := w.ns.Remove(); err != nil {
					t.Fatal(err)
				}
				w.ns = nil
				w.unguarded()
			}
		}
		for _, row := range []struct {
			name           string
			mode           policy.Mode
			client, server policy.Sides
			passes         bool
		}{
			{"learn", policy.Learn, policy.Sides{}, policy.Sides{}, true},
			{"alert", policy.AlertMode, both(egress(), ingress()), both(egress(), ingress()), true},
			{"exact", policy.Enforce, listed, answers, true},
			{"blocks", policy.Enforce, blocks, blocks, true},
			{"open, others denied", policy.Enforce, denyOut(policy.Sides{}, every(client)...), denyIn(policy.Sides{}, every(server)...), true},
			{"names", policy.Enforce, shopNamed(Spec{Sides: listed}).Sides, answers, true},
			{"dropped", policy.Enforce, both(egress(), ingress()), both(egress(), ingress()), false},
			{"rejected", policy.Enforce, rejecting(both(egress(), ingress())), rejecting(both(egress(), ingress())), false},
		} {
			t.Run(fmt.Sprintf("guarded=%v/%s", guarded, row.name), func(t *testing.T) {
				client.apply(t, row.mode, row.client)
				server.apply(t, row.mode, row.server)
				traffic(t, row.passes)
				for _, path := range []string{client.path, server.path, node.path} {
					if n := tracked(t, path); n != 0 {
						t.Errorf("%s: %d connections are tracked", path, n)
					}
				}
			})
		}
	}
	client.apply(t, policy.Enforce, listed)
	server.apply(t, policy.Enforce, answers)
	testLoad(t, client.path, "table inet other {\n chain c {\n type filter hook output priority 0;\n ct state established accept\n }\n}")
	if !client.talks("udp", netip.AddrPortFrom(server.v4, 53), patience(true)) {
		t.Error("no answer beside somebody else's connection tracking")
	}
	if tracked(t, client.path) == 0 {
		t.Error("somebody else's rule asks for connection tracking, and this test does not see it")
	}
}
