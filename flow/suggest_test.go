package flow

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// hamlet is a view that a test fills, and a history in it.
type hamlet struct {
	shop
	ix   *identity.Index
	now  time.Time
	keys [][]Key // of each record, for refuseEdge
}

func newHamlet() *hamlet {
	h := &hamlet{ix: identity.NewIndex("node-a"), now: morning}
	h.ix.SetNode([]netip.Addr{netip.MustParseAddr(nodeAddr)})
	h.ix.SetResolvers([]netip.Addr{netip.MustParseAddr("169.254.20.10")})
	h.ix.SetNetworks(map[string][]netip.Prefix{"office": {netip.MustParsePrefix("192.0.2.0/24")}})
	h.ix.SetPodBlocks([]netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/64")})
	return h
}

// pod adds a workload: "shop/web-1" with labels "app=web tier=front" at an address.
func (h *hamlet) pod(name, labels, addr string) { h.podAt(name, labels, addr, true) }

func (h *hamlet) podAt(name, labels, addr string, local bool) {
	ns, pod, _ := strings.Cut(name, "/")
	l := identity.Labels{}
	for _, kv := range strings.Fields(labels) {
		k, v, _ := strings.Cut(kv, "=")
		l[k] = v
	}
	h.ix.Upsert(identity.Workload{ID: name, Namespace: ns, Name: pod, Node: "node-a", Labels: l,
		Service: identity.ServiceOf(ns, pod, l, nil), Addrs: []netip.Addr{netip.MustParseAddr(addr)},
		Local: local, Source: identity.SourceCNI, Since: morning.Add(-time.Hour)})
	h.view = h.ix.View()
}

// call is a connection that both ends see, if they are workloads here.
func (h *hamlet) call(client, server string, proto identity.Protocol, port uint16) {
	h.now = h.now.Add(time.Second)
	c, s := netip.MustParseAddr(client), netip.MustParseAddr(server)
	if w := h.view.Peer(c).Workload; w != nil && w.Local {
		h.record(policy.Egress, h.now, c, s, proto, port)
	}
	if b := h.view.Backends(identity.VIPKey{Addr: s, Protocol: proto, Port: port}); len(b) > 0 {
		s, port = b[0].Workload.Addrs[0], b[0].Port
	}
	if w := h.view.Peer(s).Workload; w != nil && w.Local {
		h.record(policy.Ingress, h.now, c, s, proto, port)
	}
}

func (h *hamlet) refuse() { // the last record was denied
	r := &h.log[len(h.log)-1].record
	r.Event, r.Verdict = Denied, policy.Deny
}

// TestSuggest: a small history, and all that is generated from it.
func TestSuggest(t *testing.T) {
	tests := []struct {
		name    string
		options Options
		history func(h *hamlet)
		want    []string // lines that must be there, in this order
		never   []string // text that must not
	}{
		{"no evidence, no isolation", Options{}, func(h *hamlet) {
			h.pod("shop/idle-1", "app=idle", "10.1.0.10")
		}, []string{"# shop/idle: no policy: nothing was seen that it would need",
			"#   Ingress is left open: nothing was seen in that direction.",
			"#   Egress is left open: nothing was seen in that direction."}, []string{"kind:"}},

		{"probes and DNS alone say nothing of what a service needs", Options{}, func(h *hamlet) {
			h.pod("shop/idle-1", "app=idle", "10.1.0.10")
			h.call(nodeAddr, "10.1.0.10", identity.TCP, 8080)
			h.call("10.1.0.10", "169.254.20.10", identity.UDP, 53)
		}, []string{"#   Ingress is left open: only the node itself, which is always let in, was seen in that direction.",
			"#   Egress is left open: only DNS, which is always allowed, was seen in that direction."}, []string{"kind:"}},

		{"only what was denied: no isolation, and a comment", Options{}, func(h *hamlet) {
			h.pod("shop/db-1", "app=db", "10.1.0.10")
			h.call("203.0.113.5", "10.1.0.10", identity.TCP, 22)
			h.refuse()
		}, []string{"#   Ingress is left open: nothing was seen in that direction.", "#   Left out: 203.0.113.5 → shop/db TCP/22, was denied."}, []string{"kind:"}},

		{"a resolver, a network, the node, an address", Options{}, func(h *hamlet) {
			h.pod("shop/web-1", "app=web", "10.1.0.10")
			h.call("10.1.0.10", "169.254.20.10", identity.UDP, 53)
			h.call("10.1.0.10", "192.0.2.7", identity.TCP, 25)
			h.call("10.1.0.10", nodeAddr, identity.TCP, 10250)
			h.call("10.1.0.10", "198.51.100.7", identity.TCP, 443)
			h.call("10.1.0.10", "198.51.100.7", identity.ICMP, 8)
		}, []string{"network: node", "network: dns", "network: office", "cidr: 198.51.100.7/32", "protocol: ICMP", "port: 8", "cidr: 198.51.100.7/32", "port: 443"}, nil},

		{"the same as a NetworkPolicy", Options{Format: Kubernetes}, func(h *hamlet) {
			h.pod("shop/web-1", "app=web", "10.1.0.10")
			h.call("10.1.0.10", "169.254.20.10", identity.UDP, 53)
			h.call("10.1.0.10", "192.0.2.7", identity.TCP, 25)
			h.call("10.1.0.10", nodeAddr, identity.TCP, 10250)
			h.call("10.1.0.10", "198.51.100.7", identity.TCP, 443)
			h.call("10.1.0.10", "198.51.100.7", identity.ICMP, 8)
		}, []string{"# Left out, NetworkPolicy cannot say it: shop/web → 198.51.100.7 ICMP/8.",
			"kind: NetworkPolicy", "cidr: 10.1.0.1/32", "cidr: 169.254.20.10/32", "cidr: 192.0.2.0/24", "cidr: 198.51.100.7/32"}, []string{"network:", "ICMP\n"}},

		{"many addresses are the world, and a comment says so", Options{}, func(h *hamlet) {
			h.pod("shop/web-1", "app=web", "10.1.0.10")
			for i := range 9 {
				h.call("10.1.0.10", fmt.Sprintf("198.51.100.%d", i+1), identity.TCP, 443)
			}
			h.call("10.1.0.10", "198.51.100.1", identity.TCP, 80)
		}, []string{"cidr: 198.51.100.1/32", "port: 80", "# Wider than what was seen: more than 8 addresses, so the whole world.", "network: world", "port: 443"}, []string{"198.51.100.2/32"}},

		{"the world as a NetworkPolicy leaves the cluster out", Options{Format: Kubernetes}, func(h *hamlet) {
			h.pod("shop/web-1", "app=web", "10.1.0.10")
			for i := range 9 {
				h.call("10.1.0.10", fmt.Sprintf("198.51.100.%d", i+1), identity.TCP, 443)
			}
		}, []string{"# Wider than what was seen", "cidr: 0.0.0.0/0", "- 10.1.0.0/16", "cidr: ::/0", "- fd00:1::/64"}, nil},

		{"what the world does not hold is written by itself", Options{}, func(h *hamlet) {
			h.pod("shop/web-1", "app=web", "10.1.0.10")
			for i := range 12 {
				h.call("10.1.0.10", fmt.Sprintf("224.0.0.%d", i+1), identity.UDP, 5353)
			}
		}, []string{"cidr: 224.0.0.1/32", "cidr: 224.0.0.12/32"}, []string{"network: world"}},

		{"a peer of another namespace", Options{Service: "shop/web"}, func(h *hamlet) {
			h.pod("shop/web-1", "app=web", "10.1.0.10")
			h.pod("data/db-1", "app=db", "10.1.0.11")
			h.call("10.1.0.10", "10.1.0.11", identity.TCP, 5432)
		}, []string{"name: web", "app: db", "namespaceSelector:", "kubernetes.io/metadata.name: data"}, []string{"name: db"}},

		{"one namespace", Options{Namespace: "data"}, func(h *hamlet) {
			h.pod("shop/web-1", "app=web", "10.1.0.10")
			h.pod("data/db-1", "app=db", "10.1.0.11")
			h.call("10.1.0.10", "10.1.0.11", identity.TCP, 5432)
		}, []string{"name: db"}, []string{"name: web\n"}},

		{"the service's label does not tell it apart: the fewest that do", Options{Service: "shop/api"}, func(h *hamlet) {
			h.pod("shop/api-1", "app.kubernetes.io/name=api app=shop tier=back pod-template-hash=1", "10.1.0.10")
			h.pod("shop/api-2", "app.kubernetes.io/name=api app=shop tier=back pod-template-hash=2", "10.1.0.11")
			h.call("203.0.113.5", "10.1.0.10", identity.TCP, 80)
		}, []string{"matchLabels:", "app.kubernetes.io/name: api", "policyTypes:"}, []string{"tier", "hash"}},

		{"a service without the naming labels, named after its owner", Options{Service: "shop/batch"}, func(h *hamlet) {
			h.pod("shop/batch", "team=data job=nightly", "10.1.0.10")
			h.pod("shop/other", "team=data job=hourly", "10.1.0.11")
			h.call("10.1.0.10", "198.51.100.7", identity.TCP, 443)
		}, []string{"matchLabels:", "job: nightly"}, []string{"team"}},

		{"labels cannot tell two services apart: no policy, and as a peer a named generalisation", Options{}, func(h *hamlet) {
			h.pod("shop/one", "team=data", "10.1.0.10")
			h.pod("shop/two", "team=data", "10.1.0.11")
			h.pod("shop/db-1", "app=db", "10.1.0.12")
			h.call("10.1.0.10", "10.1.0.12", identity.TCP, 5432)
		}, []string{"# Wider than what was seen: no labels tell one from other workloads of namespace shop.", "team: data",
			"# shop/one: no policy: no labels tell its workloads from others of namespace shop; give them a label of their own, for example app=one"}, nil},

		{"workloads of other nodes only", Options{Service: "shop/db"}, func(h *hamlet) {
			h.pod("shop/web-1", "app=web", "10.1.0.10")
			h.podAt("shop/db-1", "app=db", "10.1.0.11", false)
			h.call("10.1.0.10", "10.1.0.11", identity.TCP, 5432)
		}, []string{"# shop/db: no policy: its workloads run on other nodes, and what they do was not seen here"}, []string{"kind:"}},

		{"a peer that is gone costs one comment", Options{}, func(h *hamlet) {
			h.pod("shop/web-1", "app=web", "10.1.0.10")
			h.pod("shop/db-1", "app=db", "10.1.0.11")
			h.call("10.1.0.10", "198.51.100.7", identity.TCP, 443)
			h.call("10.1.0.10", "10.1.0.11", identity.TCP, 5432)
			h.ix.Withdraw("shop/db-1", identity.SourceCNI)
			h.view = h.ix.View()
		}, []string{"# shop/db: no policy: no workload of it is known now", "# Left out: no workload of shop/db is known now.", "cidr: 198.51.100.7/32"}, nil},

		{"a name that no object may have", Options{}, func(h *hamlet) {
			h.pod("shop/x", "app=My_App", "10.1.0.10")
			h.call("10.1.0.10", "198.51.100.7", identity.TCP, 443)
		}, []string{"name: my-app-", "app: My_App"}, nil},

		{"nothing that somebody names ends a comment", Options{}, func(h *hamlet) {
			h.pod("shop/web\nkind: Evil", "app=web", "10.1.0.10")
			h.call("10.1.0.10", "198.51.100.7", identity.TCP, 443)
		}, []string{"by web?kind: Evil"}, []string{"\nkind: Evil"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHamlet()
			tt.history(h)
			text := generate(t, replay(t, h.log, Limits{}).Edges(), h.view, tt.options)
			parse(t, text)
			rest := text
			for _, want := range tt.want {
				_, after, ok := strings.Cut(rest, want)
				if !ok {
					t.Fatalf("%q is missing (here or in this order):\n%s", want, text)
				}
				rest = after
			}
			for _, never := range tt.never {
				if strings.Contains(text, never) {
					t.Errorf("%q must not be there:\n%s", never, text)
				}
			}
		})
	}
}

// TestServiceThatHasWorkloadsNow: a virtual address without backends when it was dialled.
func TestServiceThatHasWorkloadsNow(t *testing.T) {
	h := newHamlet()
	h.pod("shop/web-1", "app=web", "10.1.0.10")
	h.ix.SetServices([]identity.KubeService{{Namespace: "shop", Name: "db", Selector: identity.Labels{"app": "db"},
		Addrs: []netip.Addr{netip.MustParseAddr("10.96.0.7")}, Ports: []identity.ServicePort{{Protocol: identity.TCP, Port: 80, Target: 5432}}}})
	h.view = h.ix.View()
	h.call("10.1.0.10", "10.96.0.7", identity.TCP, 80)
	edges := replay(t, h.log, Limits{}).Edges()
	if text := generate(t, edges, h.view, Options{Service: "shop/web"}); !strings.Contains(text, "cidr: 10.96.0.7/32") || !strings.Contains(text, "No workload behind this Service is known") {
		t.Errorf("without workloads:\n%s", text)
	}
	allowed(t, parse(t, generate(t, edges, h.view, Options{})), h.view, h.log)
	h.pod("shop/db-1", "app=db", "10.1.0.11")
	text := generate(t, edges, h.view, Options{Service: "shop/web"})
	if !strings.Contains(text, "app: db") || !strings.Contains(text, "port: 5432") || strings.Contains(text, "10.96.0.7/32") {
		t.Errorf("with workloads:\n%s", text)
	}
}

// TestMoreTrafficMinimalDiff: ten times the same traffic changes only what stands for its magnitude;
// a little more changes nothing; one new edge adds one rule.
func TestMoreTrafficMinimalDiff(t *testing.T) {
	s := openShop(t, "online-boutique")
	repeat := func(n int) []event {
		var log []event
		for i := range n {
			for _, e := range s.log {
				e.record.Time = e.record.Time.Add(time.Duration(i) * 3 * time.Hour)
				log = append(log, e)
			}
		}
		return log
	}
	text := func(log []event) string { return generate(t, replay(t, log, Limits{}).Edges(), s.view, Options{}) }
	twice := text(repeat(2))
	if diff := cmp.Diff(twice, text(repeat(4))); diff != "" {
		t.Errorf("twice the traffic changed the text:\n%s", diff)
	}
	more := repeat(4)
	a, b := s.peers["paymentservice"][0], s.peers["redis-cart"][0]
	s.record(policy.Egress, morning.Add(20*time.Hour), a, b, identity.TCP, 6379)
	s.record(policy.Ingress, morning.Add(20*time.Hour), a, b, identity.TCP, 6379)
	more = append(more, s.log[len(s.log)-2:]...)
	var added, removed []string
	old, fresh := strings.Split(twice, "\n"), strings.Split(text(more), "\n")
	for _, l := range fresh {
		if !slices.Contains(old, l) {
			added = append(added, l)
		}
	}
	for _, l := range old {
		if !slices.Contains(fresh, l) {
			removed = append(removed, l)
		}
	}
	if len(removed) != 0 || len(added) != 3 || len(fresh)-len(old) > 22 {
		t.Errorf("one new edge: %d lines more, removed %q, new %q", len(fresh)-len(old), removed, added)
	}
}

// TestSizeIsBoundedByServicesTimesPorts: not by workloads, addresses or connections (PAINS 1, 21).
func TestSizeIsBoundedByServicesTimesPorts(t *testing.T) {
	size := func(pods, addrs int) (int, int) {
		h := newHamlet()
		h.pod("shop/db-1", "app=db", "10.1.0.10")
		for i := range pods {
			h.pod(fmt.Sprintf("shop/web-%d", i), "app=web", fmt.Sprintf("10.1.%d.%d", 1+i/200, i%200))
			h.call(fmt.Sprintf("10.1.%d.%d", 1+i/200, i%200), "10.1.0.10", identity.TCP, 50051)
		}
		for i := range addrs {
			h.call("10.1.1.0", fmt.Sprintf("198.51.%d.%d", i/200, i%200), identity.TCP, 443)
		}
		text := generate(t, replay(t, h.log, Limits{}).Edges(), h.view, Options{})
		allowed(t, parse(t, text), h.view, h.log)
		if strings.Contains(text, "3276") {
			t.Error("a client's port is in the text")
		}
		return len(text), strings.Count(text, "port: 50051")
	}
	few, _ := size(4, 10)
	many, rules := size(400, 400)
	if rules != 2 || many > few+100 {
		t.Errorf("%d bytes from 4 workloads and 10 addresses, %d from 400; %d rules for one edge at both ends, want 2", few, many, rules)
	}
}

// TestPortScanInWriting: a scan in the learning window stays short, is marked, and is allowed exactly.
func TestPortScanInWriting(t *testing.T) {
	h := newHamlet()
	h.pod("shop/db-1", "app=db", "10.1.0.10")
	h.pod("shop/evil-1", "app=evil", "10.1.0.11")
	for port := uint16(1); port <= 1000; port++ {
		if port != 500 {
			h.call("10.1.0.11", "10.1.0.10", identity.TCP, port)
		}
	}
	text := generate(t, replay(t, h.log, Limits{}).Edges(), h.view, Options{})
	set := parse(t, text)
	allowed(t, set, h.view, h.log)
	d := set.Evaluate(h.view, policy.Connection{Client: h.view.Peer(netip.MustParseAddr("10.1.0.11")),
		Server: h.view.Peer(netip.MustParseAddr("10.1.0.10")), Protocol: identity.TCP, Port: 500})
	if d.Verdict == policy.Allow {
		t.Error("a port that was not seen is allowed")
	}
	if n := strings.Count(text, "\n"); n > 90 || strings.Count(text, "REVIEW: scan-like") != 2*fewLines || !strings.Contains(text, "endPort: 1000") {
		t.Errorf("%d lines, want a short text with the review's reason:\n%s", n, text)
	}
}

// TestRandomHistories: whatever was seen and not denied is allowed by what is generated, in both
// formats and every order; what is generated is the same in every order; every selector selects
// exactly its service.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(10) {
		h := randomHistory(seed)
		var first string
		for order, log := range arrangements(h.log) {
			edges := replay(t, log, Limits{WorldAddrs: 12}).Edges()
			text := generate(t, edges, h.view, Options{})
			if first == "" {
				first = text
			}
			if text != first {
				t.Fatalf("seed %d, %s: %s", seed, order, cmp.Diff(first, text))
			}
		}
		set := parse(t, first)
		allowed(t, set, h.view, h.log)
		for _, p := range set.Policies() {
			h.exact(t, p)
		}
		kube := parse(t, generate(t, replay(t, h.log, Limits{WorldAddrs: 12}).Edges(), h.view, Options{Format: Kubernetes}))
		var said []event
		for _, e := range h.log {
			if e.record.Protocol.HasPorts() {
				said = append(said, e)
			}
		}
		allowed(t, kube, h.view, said)
		if t.Failed() {
			t.Fatalf("seed %d:\n%s", seed, first)
		}
	}
}

func randomHistory(seed uint64) *hamlet {
	rng := rand.New(rand.NewPCG(seed, 2))
	h := newHamlet()
	pick := func(list ...string) string { return list[rng.IntN(len(list))] }
	var addrs []string
	for i := range 4 + rng.IntN(12) {
		app := pick("web", "db", "cache", "mail", "Odd_Name", "true")
		labels := pick("app="+app, "app="+app+" tier=x", "app.kubernetes.io/name="+app+" app=suite", "name="+app, "")
		a := fmt.Sprintf("10.1.0.%d", 10+i)
		h.pod(fmt.Sprintf("%s/%s-%d", pick("shop", "shop", "data"), "pod"+app, i), labels, a)
		addrs = append(addrs, a)
	}
	h.ix.SetServices([]identity.KubeService{
		{Namespace: "shop", Name: "web", Selector: identity.Labels{"app": "web"}, Addrs: []netip.Addr{netip.MustParseAddr("10.96.0.7")},
			Ports: []identity.ServicePort{{Protocol: identity.TCP, Port: 80, Target: 8080}}},
		{Namespace: "shop", Name: "suite", Selector: identity.Labels{"app": "suite"}, Addrs: []netip.Addr{netip.MustParseAddr("10.96.0.8")},
			Ports: []identity.ServicePort{{Protocol: identity.TCP, Port: 80, Target: 9090}, {Protocol: identity.UDP, Port: 53, Target: 5353}}},
	})
	h.view = h.ix.View()
	outside := []string{nodeAddr, "169.254.20.10", "192.0.2.7", "169.254.169.254", "224.0.0.251", "10.96.0.7", "10.96.0.8"}
	for range 20 + rng.IntN(150) {
		client, server := pick(addrs...), pick(addrs...)
		switch rng.IntN(4) {
		case 0:
			server = pick(outside...)
		case 1:
			server = fmt.Sprintf("198.51.100.%d", rng.IntN(40))
		case 2:
			client = pick(nodeAddr, fmt.Sprintf("203.0.113.%d", rng.IntN(30)))
		}
		if client == server {
			continue
		}
		proto := []identity.Protocol{identity.TCP, identity.TCP, identity.UDP, identity.SCTP, identity.ICMP}[rng.IntN(5)]
		port := []uint16{53, 80, 443, 5432, 8080}[rng.IntN(5)]
		if proto == identity.ICMP {
			port = 8
		}
		h.call(client, server, proto, port)
	}
	for range len(h.log) / 12 {
		h.refuseEdge(rng.IntN(len(h.log)))
	}
	return h
}

// refuseEdge denies a record and every other of the same edges: an edge that only some flows of were
// denied is another matter, see TestGraph.
func (h *hamlet) refuseEdge(i int) {
	if h.keys == nil {
		for _, e := range h.log {
			s, _ := NewGraph(Limits{}).Observe(e.record, e.client, e.server, e.backends)
			h.keys = append(h.keys, append(s.More, s.Key))
		}
	}
	refused := map[Key]bool{}
	for todo := []int{i}; len(todo) > 0; todo = todo[1:] {
		for _, k := range h.keys[todo[0]] {
			refused[k] = true
		}
		r := &h.log[todo[0]].record
		r.Event, r.Verdict = Denied, policy.Deny
		for j, keys := range h.keys {
			if h.log[j].record.Verdict == policy.Allow && slices.ContainsFunc(keys, func(k Key) bool { return refused[k] }) {
				todo = append(todo, j)
			}
		}
	}
}
