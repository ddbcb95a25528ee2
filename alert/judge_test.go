package alert

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

var morning = time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)

// clock is a time that only the test moves.
type clock struct{ now time.Time }

func (c *clock) read() time.Time         { return c.now }
func (c *clock) forward(d time.Duration) { c.now = c.now.Add(d) }

// shop is a view with web, db (two workloads), evil, and a Service in front of db.
func shop(t testing.TB) *identity.View {
	t.Helper()
	ix := identity.NewIndex("node-a")
	for i, name := range []string{"web-1", "db-1", "db-2", "evil-1", "evil-2"} {
		app, _, _ := strings.Cut(name, "-")
		ix.Upsert(identity.Workload{
			ID: "id-" + name, Namespace: "shop", Name: name, Node: "node-a",
			Labels:  identity.Labels{"app": app},
			Service: identity.Service{Namespace: "shop", Name: app},
			Addrs:   []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(10 + i)})},
			Local:   true, Source: identity.SourceCNI, Since: morning,
		})
	}
	ix.SetNode([]netip.Addr{netip.MustParseAddr("10.1.0.1")})
	ix.SetNetworks(nil)
	ix.SetServices([]identity.KubeService{{Namespace: "shop", Name: "db", Selector: identity.Labels{"app": "db"},
		Addrs: []netip.Addr{netip.MustParseAddr("10.96.0.7")},
		Ports: []identity.ServicePort{{Protocol: identity.TCP, Port: 80, Target: 5432}}}})
	return ix.View()
}

// onlyWebMayCallDB isolates db's ingress, and web's egress.
const onlyWebMayCallDB = `
apiVersion: bulkhead.dev/v1alpha1
kind: Policy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{protocol: TCP, port: 5432}]
---
apiVersion: bulkhead.dev/v1alpha1
kind: Policy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: db}}}]
    ports: [{protocol: TCP, port: 5432}]
`

// scene makes cases the way the daemon does.
type scene struct {
	t        testing.TB
	view     *identity.View
	set      *policy.Set
	graph    *flow.Graph
	baseline *flow.Baseline
	modes    map[string]policy.Mode // by service
	clock    *clock
}

func newScene(t testing.TB, yaml string) *scene {
	t.Helper()
	policies, err := policy.Parse("test.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.NewSet(policies...)
	if err != nil {
		t.Fatal(err)
	}
	return &scene{t: t, view: shop(t), set: set, graph: flow.NewGraph(flow.Limits{}), baseline: flow.NewBaseline(flow.Limits{}),
		modes: map[string]policy.Mode{}, clock: &clock{morning}}
}

func (s *scene) judge() *Judge { return &Judge{Node: "node-a", Now: s.clock.read} }

// seen is the record that one end makes of a connection.
func (s *scene) seen(dir policy.Direction, client, server string, proto identity.Protocol, port uint16, v policy.Verdict) Case {
	r := flow.Record{Time: s.clock.now, Event: flow.Birth, Direction: dir, Protocol: proto, Port: port, Verdict: v, Count: 1,
		Client: netip.MustParseAddr(client), Server: netip.MustParseAddr(server)}
	if v == policy.Deny {
		r.Event = flow.Denied
	}
	return s.makeCase(r)
}

func (s *scene) makeCase(r flow.Record) Case {
	c := Case{Record: r, Client: s.view.Peer(r.Client), Server: s.view.Peer(r.Server)}
	c.Workload = c.Client.Workload
	if r.Direction == policy.Ingress {
		c.Workload = c.Server.Workload
	}
	c.Backends = s.view.Backends(identity.VIPKey{Addr: r.Server, Protocol: r.Protocol, Port: r.Port})
	c.Sighting, _ = s.graph.Observe(r, c.Client, c.Server, c.Backends)
	c.Decision = s.set.Evaluate(s.view, policy.Connection{Client: c.Client, Server: c.Server, Protocol: r.Protocol, Port: r.Port})
	c.Baseline, c.Known = s.baseline.Knows(c.Sighting)
	c.ClientMode = s.modes[c.Sighting.Key.Client.String()]
	c.ServerMode = s.modes[c.Sighting.Key.Server.String()]
	return c
}

const (
	web, db, db2, evil, evil2, vip = "10.1.0.10", "10.1.0.11", "10.1.0.12", "10.1.0.13", "10.1.0.14", "10.96.0.7"
	outside, metadataServer        = "198.51.100.7", "169.254.169.254"
)

// line is what a row expects: the fields that tell alerts apart, and the sentences that people read.
func line(a Alert) string {
	s := fmt.Sprintf("%s %s %s → %s %s: %s", a.Severity, a.Kind, a.Client.Service, a.Server.Service, a.Verdict, a.Reason)
	if a.Breaks != "" {
		s += " [" + a.Breaks + "]"
	}
	return s + "\n  " + a.Advice
}

// TestJudge: a history, one record, and the alert that an operator reads.
func TestJudge(t *testing.T) {
	tests := []struct {
		name    string
		policy  string
		history func(s *scene)
		see     func(s *scene) Case
		want    string
	}{
		{"in mode learn nothing is odd", onlyWebMayCallDB, nil,
			func(s *scene) Case { return s.seen(policy.Egress, evil, db, identity.TCP, 22, policy.Allow) }, ""},

		{"stopped by the server's policy, seen by the server", onlyWebMayCallDB,
			func(s *scene) { s.modes["shop/db"] = policy.Enforce },
			func(s *scene) Case { return s.seen(policy.Ingress, evil, db, identity.TCP, 22, policy.Deny) },
			"medium denied shop/evil → shop/db deny: shop/evil-1 tried shop/db on TCP/22 and was stopped: ingress of shop/db-1 is isolated by shop/db and none of 1 ingress rules allows from shop/evil-1 on TCP/22 [policy shop/db]\n" +
				"  if it belongs there, add to ingress of policy shop/db: - {from: [{podSelector: {matchLabels: {app: evil}}}], ports: [{protocol: TCP, port: 22}]}"},

		{"the client's own record of it is no second alert: it was let out", onlyWebMayCallDB,
			func(s *scene) { s.modes["shop/db"] = policy.Enforce },
			func(s *scene) Case { return s.seen(policy.Egress, evil, db, identity.TCP, 22, policy.Allow) }, ""},

		{"stopped at the client", onlyWebMayCallDB,
			func(s *scene) { s.modes["shop/web"] = policy.Enforce },
			func(s *scene) Case { return s.seen(policy.Egress, web, outside, identity.TCP, 443, policy.Deny) },
			"medium denied shop/web → world deny: shop/web-1 tried 198.51.100.7 on TCP/443 and was stopped: egress of shop/web-1 is isolated by shop/web and none of 1 egress rules allows to world (198.51.100.7) on TCP/443 [policy shop/web]\n" +
				"  if it belongs there, add to egress of policy shop/web: - {to: [{ipBlock: {cidr: 198.51.100.7/32}}], ports: [{protocol: TCP, port: 443}]}"},

		{"let through by mode alert", onlyWebMayCallDB,
			func(s *scene) { s.modes["shop/web"] = policy.AlertMode },
			func(s *scene) Case { return s.seen(policy.Egress, web, outside, identity.TCP, 443, policy.Alert) },
			"low denied shop/web → world alert: shop/web-1 tried 198.51.100.7 on TCP/443 and was let through by mode alert: egress of shop/web-1 is isolated by shop/web and none of 1 egress rules allows to world (198.51.100.7) on TCP/443 [policy shop/web]\n" +
				"  if it belongs there, add to egress of policy shop/web: - {to: [{ipBlock: {cidr: 198.51.100.7/32}}], ports: [{protocol: TCP, port: 443}]}"},

		{"through a virtual address: the backend's port", strings.ReplaceAll(onlyWebMayCallDB, "5432", "5433"),
			func(s *scene) { s.modes["shop/web"] = policy.Enforce },
			func(s *scene) Case { return s.seen(policy.Egress, web, vip, identity.TCP, 80, policy.Deny) },
			"medium denied shop/web → shop/db deny: shop/web-1 tried shop/db on TCP/5432 and was stopped: service shop/db: a workload behind it is not allowed: egress of shop/web-1 is isolated by shop/web and no rule allows to shop/db-1 on TCP/5432; nearest: shop/web egress[0] admits that peer on TCP/5433 only [policy shop/web]\n" +
				"  if it belongs there, add to egress of policy shop/web: - {to: [{podSelector: {matchLabels: {app: db}}}], ports: [{protocol: TCP, port: 5432}]}"},

		{"the metadata server matters more", onlyWebMayCallDB,
			func(s *scene) { s.modes["shop/web"] = policy.Enforce },
			func(s *scene) Case { return s.seen(policy.Egress, web, metadataServer, identity.TCP, 80, policy.Deny) },
			"high denied shop/web → metadata deny: shop/web-1 tried metadata on TCP/80 and was stopped: egress of shop/web-1 is isolated by shop/web and none of 1 egress rules allows to metadata (169.254.169.254) on TCP/80 [policy shop/web]\n" +
				"  if it belongs there, add to egress of policy shop/web: - {to: [{network: metadata}], ports: [{protocol: TCP, port: 80}]}"},

		{"denied by rules of a moment ago", onlyWebMayCallDB,
			func(s *scene) { s.modes["shop/db"] = policy.Enforce },
			func(s *scene) Case { return s.seen(policy.Ingress, web, db, identity.TCP, 5432, policy.Deny) },
			"medium denied shop/web → shop/db deny: shop/web-1 tried shop/db on TCP/5432 and was stopped by rules that changed since: the policies now in force allow it\n" +
				"  nothing, unless it goes on; then: bulkhead explain shop/web shop/db tcp/5432"},

		{"a locked baseline knows it", "",
			func(s *scene) {
				c := s.seen(policy.Egress, web, db, identity.TCP, 5432, policy.Allow)
				s.baseline.Learn(c.Sighting, morning)
				s.baseline.Lock(identity.Service{Namespace: "shop", Name: "db"}, morning)
			},
			func(s *scene) Case { return s.seen(policy.Ingress, web, db2, identity.TCP, 5432, policy.Allow) }, ""},

		{"new to the server's locked baseline", "",
			func(s *scene) { s.baseline.Lock(identity.Service{Namespace: "shop", Name: "db"}, morning) },
			func(s *scene) Case { return s.seen(policy.Ingress, evil, db, identity.TCP, 22, policy.Allow) },
			"medium new-edge shop/evil → shop/db allow: shop/evil-1 called shop/db on TCP/22, which nothing of shop/evil did while shop/db learned; no policy denies it and it was let through [baseline shop/db]\n" +
				"  if it belongs there, learn it: bulkhead mode shop/db learn; if not, isolate it: bulkhead policy generate --service shop/db"},

		{"the very first connection to a new outside address", "",
			func(s *scene) { s.baseline.Lock(identity.Service{Namespace: "shop", Name: "web"}, morning) },
			func(s *scene) Case { return s.seen(policy.Egress, web, outside, identity.TCP, 443, policy.Allow) },
			"medium new-edge shop/web → world allow: shop/web-1 called 198.51.100.7 on TCP/443, which shop/web never did while it learned; no policy denies it and it was let through [baseline shop/web]\n" +
				"  if it belongs there, learn it: bulkhead mode shop/web learn; if not, isolate it: bulkhead policy generate --service shop/web"},

		{"a frame with another's sender", "", nil, func(s *scene) Case {
			c := s.makeCase(flow.Record{Time: morning, Event: flow.Spoof, Sensor: flow.AtGuard, Direction: policy.Egress,
				Client: netip.MustParseAddr(web), Server: netip.MustParseAddr(db), Protocol: identity.UDP, Port: 53,
				EtherType: 0x0800, SourceMAC: [6]byte{2, 0, 0, 0, 0, 9}})
			c.Workload = s.view.Peer(netip.MustParseAddr(evil)).Workload
			return c
		}, "high spoof shop/evil → shop/db deny: shop/evil-1 sent an IPv4 frame with sender MAC 02:00:00:00:00:09 and address 10.1.0.10, which are not both its own; the guard dropped it; the address belongs to shop/web\n" +
			"  find out what runs in shop/evil-1; honest programs do not need it, and CAP_NET_RAW, which it takes, can be dropped"},

		{"a frame past the namespace's rules", "", nil, func(s *scene) Case {
			c := s.makeCase(flow.Record{Time: morning, Event: flow.Raw, Sensor: flow.AtGuard, Direction: policy.Egress,
				Client: netip.MustParseAddr(evil), Server: netip.MustParseAddr(db), Protocol: identity.TCP, Port: 22, EtherType: 0x0800})
			return c
		}, "high raw-socket shop/evil → shop/db deny: shop/evil-1 sent an IPv4 frame to shop/db on TCP/22 past the rules of its own namespace, by a raw socket (AF_PACKET, AF_XDP) or the like; the guard dropped it\n" +
			"  find out what runs in shop/evil-1; CAP_NET_RAW, which it takes, can be dropped"},

		{"a VLAN tag", "", nil, func(s *scene) Case {
			return Case{Record: flow.Record{Time: morning, Event: flow.Raw, EtherType: 0x8100}, Workload: s.view.Find("shop", "evil-1")}
		}, "high raw-socket shop/evil →  deny: shop/evil-1 sent a VLAN-tagged frame past the rules of its own namespace, by a raw socket (AF_PACKET, AF_XDP) or the like; the guard dropped it\n" +
			"  find out what runs in shop/evil-1; CAP_NET_RAW, which it takes, can be dropped"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, tt.policy)
			if tt.history != nil {
				tt.history(s)
			}
			j := s.judge()
			var got []string
			if a := j.Judge(tt.see(s)); a != nil {
				got = append(got, line(*a))
			}
			s.clock.forward(2 * time.Second)
			for _, h := range j.Due() {
				if h.Alert.Node != "node-a" || h.Alert.Count != 1 || !h.Alert.First.Equal(morning) {
					t.Errorf("node %q, count %d, first %v", h.Alert.Node, h.Alert.Count, h.Alert.First)
				}
				got = append(got, line(h.Alert))
			}
			if s := strings.Join(got, "\n"); s != tt.want {
				t.Errorf("got\n%s\nwant\n%s", s, tt.want)
			}
		})
	}
}

// TestAdviceIsAPolicy: the rule that an alert advises, put into the policy that it names, allows the
// connection.
func TestAdviceIsAPolicy(t *testing.T) {
	s := newScene(t, onlyWebMayCallDB)
	s.modes["shop/db"], s.modes["shop/web"] = policy.Enforce, policy.Enforce
	for _, c := range []Case{
		s.seen(policy.Ingress, evil, db, identity.TCP, 22, policy.Deny),
		s.seen(policy.Egress, web, outside, identity.UDP, 443, policy.Deny),
		s.seen(policy.Egress, web, metadataServer, identity.TCP, 80, policy.Deny),
		s.seen(policy.Egress, web, "10.1.0.1", identity.TCP, 10250, policy.Deny),
	} {
		a := denied(&c)
		_, rule, ok := strings.Cut(a.Advice, ": - ")
		if !ok {
			t.Fatalf("advice %q holds no rule", a.Advice)
		}
		dir, section, subject := "Ingress", "ingress", "db"
		if c.Record.Direction == policy.Egress {
			dir, section, subject = "Egress", "egress", "web"
		}
		text := fmt.Sprintf("apiVersion: bulkhead.dev/v1alpha1\nkind: Policy\nmetadata: {name: more, namespace: shop}\n"+
			"spec:\n  podSelector: {matchLabels: {app: %s}}\n  policyTypes: [%s]\n  %s:\n  - %s\n", subject, dir, section, rule)
		more, err := policy.Parse("advice", []byte(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		set, err := s.set.With(more...)
		if err != nil {
			t.Fatal(err)
		}
		d := set.Evaluate(s.view, policy.Connection{Client: c.Client, Server: c.Server, Protocol: c.Record.Protocol, Port: c.Record.Port})
		if d.Verdict != policy.Allow {
			t.Errorf("with %q: %v", rule, d.Reasons())
		}
	}
}

func TestTamper(t *testing.T) {
	s := newScene(t, "")
	tests := []struct {
		what Tampering
		want string
	}{
		{Tampering{Time: morning, Workload: s.view.Find("shop", "evil-1"), What: "table inet evil was added before ours", Process: "nft", PID: 4121, Harmless: true},
			"critical tamper shop/evil →  deny: in shop/evil-1: table inet evil was added before ours, by nft (pid 4121); our rules were not changed\n" +
				"  find out what runs in shop/evil-1 with CAP_NET_ADMIN, and drop that capability"},
		{Tampering{Time: morning, What: "the guard of shop/web-1 is gone", Table: "netdev bulkhead-veth1"},
			"critical tamper node →  allow: on the node: the guard of shop/web-1 is gone; our rules are being put back [table netdev bulkhead-veth1]\n" +
				"  find out what runs on the node with CAP_NET_ADMIN, and drop that capability"},
	}
	for _, tt := range tests {
		if got := line(tt.what.Alert("node-a")); got != tt.want {
			t.Errorf("got\n%s\nwant\n%s", got, tt.want)
		}
	}
}

// TestOneLine: what a person sees in the file.
func TestOneLine(t *testing.T) {
	s := newScene(t, onlyWebMayCallDB)
	s.modes["shop/db"] = policy.Enforce
	c := s.seen(policy.Ingress, evil, db, identity.TCP, 22, policy.Deny)
	a := denied(&c)
	a.Time, a.Node, a.Reason, a.Advice = morning, "node-a", "…", "…"
	data, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"time":"2026-03-02T08:00:00Z","kind":"denied","severity":"medium",` +
		`"client":{"service":"shop/evil","workload":"shop/evil-1","ip":"10.1.0.13"},"server":{"service":"shop/db","workload":"shop/db-1","ip":"10.1.0.11"},` +
		`"protocol":"TCP","port":22,"verdict":"deny","reason":"…","breaks":"policy shop/db","advice":"…",` +
		`"count":1,"first":"2026-03-02T08:00:00Z","last":"2026-03-02T08:00:00Z","node":"node-a"}`
	if string(data) != want {
		t.Errorf("got\n%s\nwant\n%s", data, want)
	}
}
