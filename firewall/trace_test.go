package firewall

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// fates sends a probe and says in one line what became of it.
func fates(t testing.TB, from, to *testWorkload, p Probe) (string, Traced) {
	t.Helper()
	var dest *Namespace
	if to != nil {
		dest = to.ns
	}
	tr, err := OpenTrace(from.ns, dest, p)
	if err != nil {
		t.Fatal(err)
	}
	got, err := tr.Run(context.Background())
	if err != nil {
		t.Error(err)
	}
	if err := tr.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	var out []string
	for _, s := range got.Steps {
		out = append(out, s.Fate.String())
	}
	return strings.Join(out, ", "), got
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
						got, traced := fates(t, client, server, probeTo(client, server, v6, proto))
						if got != row.want || traced.Unsent != nil {
							t.Errorf("got %s, want %s; %+v", got, row.want, traced)
						}
						s := traced.Steps[row.stage]
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

// TestTraceSeesOthers: what drops a packet between our places, or before them, is named.
func TestTraceSeesOthers(t *testing.T) {
	node := newTestNode(t)
	client, server := node.workload(t), node.workload(t)
	client.apply(t, policy.Enforce, policy.Sides{})
	server.apply(t, policy.Enforce, policy.Sides{})
	p := probeTo(client, server, false, identity.UDP)
	nowhere := p
	nowhere.Server = netip.MustParseAddr("10.77.0.99")
	for _, row := range []struct {
		name, where, rules, want, by string
		to                           *testWorkload
		probe                        Probe
	}{
		{"nobody", "", "", "pass, pass, pass, pass", "", server, p},
		{"the node's bridge", node.path, "table bridge other { chain f { type filter hook forward priority 0; udp dport 53 drop; }; }",
			"pass, pass, not reached, not reached", "bridge other", server, p},
		{"a mesh in the client", client.path, "table ip other { chain o { type filter hook output priority -300; policy drop; }; }",
			"drop, not reached, not reached, not reached", "ip other", server, p},
		{"the server itself", server.path, "table inet other { chain i { type filter hook input priority 10; policy drop; }; }",
			"pass, pass, pass, drop", "inet other", server, p},
		{"a server elsewhere", "", "", "pass, pass, not here, not here", "", nil, p},
		{"nobody there", "", "", "pass, not reached, not here, not here", "", nil, nowhere},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.rules != "" {
				testLoad(t, row.where, row.rules)
				defer func() {
					_, table, _ := strings.Cut(row.rules, "table ")
					testIn(t, row.where, append([]string{"nft", "delete", "table"}, strings.Fields(table)[:2]...)...)
				}()
			}
			got, traced := fates(t, client, row.to, row.probe)
			if got != row.want {
				t.Errorf("got %s, want %s: %+v", got, row.want, traced)
			}
			by := ""
			for _, s := range append(traced.Steps[:], traced.Node) {
				if s.Fate == Dropped {
					by = s.Table
				}
			}
			if by != row.by {
				t.Errorf("dropped by %q, want %q: %+v", by, row.by, traced)
			}
		})
	}
}

// TestTraceLeavesNothing: a probe is told with its port, so that it can be known, and the connection
// after it is told as if there had been none.
func TestTraceLeavesNothing(t *testing.T) {
	node := newTestNode(t)
	client, server := node.workload(t), node.workload(t)
	server.serve(t, 80, 53)
	client.apply(t, policy.Enforce, policy.Sides{})
	server.apply(t, policy.Enforce, policy.Sides{})
	watch := testWatch(t, WatchConfig{Namespace: client.path, Own: client.ns})
	r, err := NewReader(ReaderConfig{Namespace: client.path, Workload: "client"})
	if err != nil {
		t.Fatal(err)
	}
	records := testRecords(t, r)
	for _, proto := range []identity.Protocol{identity.TCP, identity.UDP, identity.ICMP} {
		tr, err := OpenTrace(client.ns, server.ns, probeTo(client, server, false, proto))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tr.Run(context.Background()); err != nil {
			t.Error(err)
		}
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
		if rec := testNext(t, records); rec.ClientPort != tr.ClientPort || rec.Protocol != proto {
			t.Errorf("%s: told of port %d, want the probe's %d: %+v", proto, rec.ClientPort, tr.ClientPort, rec)
		}
	}
	for i, p := range probes {
		if !p.try(client, server, false, patience(true)) {
			t.Errorf("%s: no answer", p.name)
		}
		if rec := testNext(t, records); rec.Event != flow.Birth || rec.Protocol != []identity.Protocol{identity.TCP, identity.UDP, identity.ICMP}[i] {
			t.Errorf("%s: %+v; want its birth", p.name, rec)
		}
	}
	watch.quiet(t, client.path)
}

// TestTraceEndsWithItsOwner: what a daemon that dies leaves behind.
func TestTraceEndsWithItsOwner(t *testing.T) {
	node := newTestNode(t)
	client, server := node.workload(t), node.workload(t)
	client.apply(t, policy.Enforce, policy.Sides{})
	server.apply(t, policy.Enforce, policy.Sides{})
	if _, err := OpenTrace(client.ns, server.ns, probeTo(client, server, false, identity.TCP)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenTrace(client.ns, server.ns, probeTo(client, server, false, identity.TCP)); err == nil || !strings.Contains(err.Error(), "another trace") {
		t.Errorf("a second trace at the same time: %v; want an error that says so", err)
	}
	for _, w := range []*testWorkload{client, server} {
		if err := w.ns.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{node.path, client.path, server.path} {
		if out := testIn(t, path, "nft", "list", "tables"); strings.Contains(out, TraceTable) {
			t.Errorf("left behind: %s", out)
		}
	}
}

// BenchmarkTrace is a whole trace; BenchmarkTraced and BenchmarkUntraced are another connection's
// exchanges while one is prepared and while none is.
func BenchmarkTrace(b *testing.B) {
	client, server := benchPair(b)
	for b.Loop() {
		fates(b, client, server, probeTo(client, server, false, identity.TCP))
	}
}

func BenchmarkTraced(b *testing.B) {
	client, server := benchPair(b)
	tr, err := OpenTrace(client.ns, server.ns, probeTo(client, server, false, identity.TCP))
	if err != nil {
		b.Fatal(err)
	}
	defer tr.Close()
	benchExchange(b, client, server)
}

func BenchmarkUntraced(b *testing.B) {
	client, server := benchPair(b)
	benchExchange(b, client, server)
}

func benchPair(b *testing.B) (client, server *testWorkload) {
	node := newTestNode(b)
	client, server = node.workload(b), node.workload(b)
	server.serve(b, 80, 53)
	client.apply(b, policy.Enforce, both(egress(allows(server)...), ingress()))
	server.apply(b, policy.Enforce, both(egress(), ingress(allows(client)...)))
	return client, server
}

func benchExchange(b *testing.B, client, server *testWorkload) {
	c, err := client.dial("tcp", netip.AddrPortFrom(server.v4, 80), patience(true))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for b.Loop() {
		if !exchange(c, []byte("hello"), patience(true)) {
			b.Fatal("no answer")
		}
	}
}

// TestTraceHearsTheKernelOnly: a process in the container that has CAP_NET_ADMIN tells of a drop.
func TestTraceHearsTheKernelOnly(t *testing.T) {
	node := newTestNode(t)
	client, server := node.workload(t), node.workload(t)
	client.apply(t, policy.Enforce, policy.Sides{})
	server.apply(t, policy.Enforce, policy.Sides{})
	tr, err := OpenTrace(client.ns, server.ns, probeTo(client, server, false, identity.UDP))
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	event := func(table, chain string, verdict uint32) []byte {
		b := attrs{byte(FamilyINet), 0, 0, 0}
		b.name(nftaTraceTable, table)
		b.name(nftaTraceChain, chain)
		b.u32(nftaTraceType, traceByRule)
		b.u32(nftaTraceID, 4711)
		b.nest(nftaTraceVerdict, func() { b.u32(1, verdict) }) // NFTA_VERDICT_CODE
		return b
	}
	lies := [][]byte{event(TraceTable, "output", 1), event(TableName, "output", 0)}
	for _, body := range lies {
		if _, ok := tr.parts[0].event(FamilyINet, body[genSize:]); !ok {
			t.Fatal("the lie is not even well told")
		}
		_ = testForge(client.path, 12, tr.parts[0].ear.port, 0, 10<<8|nftMsgTrace, body) // NETLINK_NETFILTER, NFNL_SUBSYS_NFTABLES
		_ = testForge(client.path, 12, 0, 1<<8, 10<<8|nftMsgTrace, body)                 // to the group
	}
	got, err := tr.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if got.Steps[AtClient].Fate != Passed || got.Steps[AtServer].Fate != Passed {
		t.Errorf("a forged drop was believed: %+v", got)
	}
}
