package main

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/examples/shop"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// The comparison counts an edge once however often it was learned, and tells missing from wrong.
func TestCompare(t *testing.T) {
	g, err := shop.Load()
	if err != nil {
		t.Fatal(err)
	}
	var all api.Graph
	for _, e := range g.Edges {
		all.Edges = append(all.Edges, api.Edge{Client: nameOf(g, e.From), Server: nameOf(g, e.To), Protocol: e.Protocol, Port: e.Port})
	}
	for _, name := range []string{
		"203.0.113.9 → default/frontend TCP/8080", "default/frontend → metadata TCP/80",
		"node → default/redis-cart TCP/6379", "default/cartservice → kube-system/kube-dns UDP/53",
	} {
		if !slices.ContainsFunc(all.Edges, func(e api.Edge) bool { return edgeName(e.Client, e.Server, e.Protocol, e.Port) == name }) {
			t.Errorf("%s: not among the names of the true graph", name)
		}
	}
	if c := compare(g, all); c.Found != c.True || len(c.Missing)+len(c.Wrong) != 0 {
		t.Errorf("the true graph against itself: %+v", c)
	}
	odd := api.Edge{Client: "default/adservice", Server: "default/redis-cart", Protocol: "TCP", Port: 6379}
	some := api.Graph{Edges: append(slices.Clone(all.Edges[1:]), all.Edges[1], odd)}
	c := compare(g, some)
	if c.Found != c.True-1 || len(c.Missing) != 1 || !slices.Equal(c.Wrong, []string{"default/adservice → default/redis-cart TCP/6379"}) {
		t.Errorf("one missing, one twice, one wrong: %+v", c)
	}
}

func TestTallySince(t *testing.T) {
	var before, after tally
	before.add(shop.Report{Counts: []shop.Count{{Calls: 3}, {Calls: 0}}})
	after.add(shop.Report{Counts: []shop.Count{{Client: "a", Server: "b", Protocol: "TCP", Port: 1, Calls: 9, Failures: 1, LastError: "timeout"}, {Calls: 2}}})
	if d := after.since(before); d.String() != "8 calls, 1 failures; the last: a → b TCP/1: timeout" || d.edges != 2 {
		t.Errorf("%s, %d edges", d, d.edges)
	}
}

func TestDescribeAlert(t *testing.T) {
	a := alert.Alert{Kind: alert.DeniedBy, Severity: alert.High, Client: alert.Party{Service: "default/ad", Addr: netip.MustParseAddr("10.88.0.2")},
		Server: alert.Party{Service: "default/redis", Addr: netip.MustParseAddr("10.88.0.9")}, Protocol: identity.TCP, Port: 6379,
		Verdict: policy.Deny, Reason: "no rule allows it", Breaks: "policy default/redis", Count: 3}
	want := "high     denied     default/ad (10.88.0.2) → default/redis (10.88.0.9) TCP/6379  deny x3\n         why: no rule allows it (breaks policy default/redis)"
	if have := strings.Join(describe(a), "\n"); have != want {
		t.Errorf("have:\n%s\nwant:\n%s", have, want)
	}
}

// A broken promise is an error at the end, and the table says which one it was.
func TestSummary(t *testing.T) {
	var out strings.Builder
	tell := newTeller(&out)
	tell.began = time.Now()
	tell.promise(true, "calls", "%d failures", 0)
	if err := tell.summary(); err != nil {
		t.Error(err)
	}
	tell.promise(false, "scan", "NOT BLOCKED")
	if err := tell.summary(); err == nil || !strings.Contains(err.Error(), "1 of 2 promises") {
		t.Error(err)
	}
	if !strings.Contains(out.String(), "  ✘  scan   NOT BLOCKED\n") {
		t.Errorf("summary:\n%s", out.String())
	}
}
