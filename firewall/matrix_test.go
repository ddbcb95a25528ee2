package firewall

import (
	"fmt"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// TestVerdicts sends real packets for every combination of mode, direction, family, protocol,
// verdict, and whether the workload has a guard.
func TestVerdicts(t *testing.T) {
	node := newTestNode(t)
	client, server := node.workload(t), node.workload(t)
	server.serve(t, 80, 53)
	for _, guarded := range []bool{true, false} {
		for _, w := range []*testWorkload{client, server} {
			if w.ns != nil {
				if err := w.ns.Remove(); err != nil {
					t.Fatal(err)
				}
				w.ns = nil
			}
			if !guarded {
				w.unguarded()
			}
		}
		for _, dir := range []policy.Direction{policy.Egress, policy.Ingress} {
			for _, mode := range []policy.Mode{policy.Learn, policy.AlertMode, policy.Enforce} {
				for _, allow := range []bool{true, false} {
					name := fmt.Sprintf("guarded=%v/%s/%s/allow=%v", guarded, dir, mode, allow)
					t.Run(name, func(t *testing.T) { verdictRow(t, client, server, dir, mode, allow) })
				}
			}
		}
	}
}

func verdictRow(t *testing.T, client, server *testWorkload, dir policy.Direction, mode policy.Mode, allow bool) {
	judged, other, isolate := client, server, egress
	if dir == policy.Ingress {
		judged, other, isolate = server, client, ingress
	}
	other.apply(t, policy.Learn, policy.Sides{})
	if allow {
		judged.apply(t, mode, isolate(allows(other)...))
	} else {
		judged.apply(t, mode, isolate())
	}
	for _, v6 := range []bool{false, true} {
		for _, p := range probes {
			want := allow || mode != policy.Enforce
			if got := p.try(client, server, v6, patience(want)); got != want {
				t.Errorf("%s %s: answered %v, want %v\n%s", familyName(v6), p.name, got, want,
					testIn(t, judged.path, "nft", "list", "table", "inet", TableName))
			}
		}
	}
}

// TestWideVerdicts tries what is answered from memory and not by an exact key: rights for every port
// or for a block, and a side that is open, with the other side isolated from everything.
func TestWideVerdicts(t *testing.T) {
	node := newTestNode(t)
	client, server := node.workload(t), node.workload(t)
	server.serve(t, 80, 53)
	every := func(w *testWorkload) []policy.Entry {
		return []policy.Entry{testEntry(w.v4.String(), 0, 0, 0), testEntry(w.v6.String(), 0, 0, 0)}
	}
	blocks := []policy.Entry{testEntry("10.77.0.0/24", 0, 0, 0), testEntry("fd77::/64", 0, 0, 0)}
	ranges := []policy.Entry{
		testEntry("10.77.0.0/24", identity.TCP, 70, 90), testEntry("fd77::/64", identity.TCP, 70, 90),
		testEntry("10.77.0.0/24", identity.UDP, 0, 65535), testEntry("fd77::/64", identity.UDP, 0, 65535),
		testEntry("10.77.0.0/24", identity.ICMP, 0, 65535), testEntry("fd77::/64", identity.ICMPv6, 0, 255),
	}
	rows := []struct {
		name           string
		client, server policy.Sides
		want           bool
	}{
		{"server of every port", policy.Sides{}, both(egress(), ingress(every(client)...)), true},
		{"server of a block", policy.Sides{}, both(egress(), ingress(blocks...)), true},
		{"server of ranges", policy.Sides{}, both(egress(), ingress(ranges...)), true},
		{"server of all, client of none", policy.Sides{}, egress(), true},
		{"server of none", policy.Sides{}, both(egress(every(client)...), ingress()), false},
		{"client of every port", both(egress(every(server)...), ingress()), policy.Sides{}, true},
		{"client of a block", both(egress(blocks...), ingress()), policy.Sides{}, true},
		{"client of ranges", both(egress(ranges...), ingress()), policy.Sides{}, true},
		{"client of all, server of none", ingress(), policy.Sides{}, true},
		{"client of none", both(egress(), ingress(every(server)...)), policy.Sides{}, false},
		{"both ends", both(egress(every(server)...), ingress()), both(egress(), ingress(allows(client)...)), true},
	}
	for _, guarded := range []bool{true, false} {
		for _, w := range []*testWorkload{client, server} {
			if !guarded {
				if err := w.ns.Remove(); err != nil {
					t.Fatal(err)
				}
				w.ns = nil
				w.unguarded()
			}
		}
		for _, row := range rows {
			t.Run(fmt.Sprintf("guarded=%v/%s", guarded, row.name), func(t *testing.T) {
				client.apply(t, policy.Enforce, row.client)
				server.apply(t, policy.Enforce, row.server)
				for _, v6 := range []bool{false, true} {
					for _, p := range probes {
						if got := p.try(client, server, v6, patience(row.want)); got != row.want {
							t.Errorf("%s %s: answered %v, want %v", familyName(v6), p.name, got, row.want)
						}
					}
				}
			})
		}
	}
}
