package explain

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"

	"net/netip"
)

var update = flag.Bool("update", false, "rewrite the expected text in testdata")

// view is the cluster of all cases: web and cart in shop, a probe in mon, and the world.
func view() *identity.View {
	ix := identity.NewIndex("")
	ix.SetBuiltIns(true, false)
	add := func(ns, name, addr string, labels identity.Labels, ports ...identity.ContainerPort) {
		ix.Upsert(identity.Workload{ID: ns + "/" + name, Namespace: ns, Name: name, Node: "n1", Labels: labels,
			NamespaceLabels: identity.Labels{"team": ns}, Addrs: []netip.Addr{netip.MustParseAddr(addr)}, Ports: ports, Source: identity.SourceInventory})
	}
	add("shop", "web-1", "10.0.0.1", identity.Labels{"app": "web", "tier": "front"})
	add("shop", "cart-1", "10.0.0.2", identity.Labels{"app": "cart"}, identity.ContainerPort{Name: "http", Protocol: identity.TCP, Port: 8080})
	add("mon", "prometheus-0", "10.0.1.1", identity.Labels{"app": "prometheus"})
	return ix.View()
}

// TestExplain reads each archive's "policies" and asks its question, the comment's first line
// ("shop/web-1 shop/cart-1 TCP/8080"); the answer is its file "want".
func TestExplain(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("testdata/*.txtar: %v, %d files", err, len(archives))
	}
	v := view()
	for _, file := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			list, err := policy.Parse("p.yaml", ar.Files[0].Data)
			if err != nil {
				t.Fatal(err)
			}
			set, err := policy.NewSet(list...)
			if err != nil {
				t.Fatal(err)
			}
			question, _, _ := strings.Cut(string(ar.Comment), "\n")
			got := printed(Explain(v, set, func(s *policy.Set, c policy.Connection) policy.Decision { return s.Evaluate(v, c) }, ask(t, v, question)))
			if *update {
				ar.Files = append(ar.Files[:1], txtar.File{Name: "want", Data: []byte(got)})
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(string(ar.Files[1].Data), got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func ask(t *testing.T, v *identity.View, question string) policy.Connection {
	t.Helper()
	words := strings.Fields(question)
	if len(words) != 3 {
		t.Fatalf("question %q: want CLIENT SERVER PROTOCOL/PORT", question)
	}
	peer := func(name string) identity.Peer {
		if a, err := netip.ParseAddr(name); err == nil {
			return v.Peer(a)
		}
		ns, name, _ := strings.Cut(name, "/")
		w := v.Find(ns, name)
		if w == nil {
			t.Fatalf("no workload %s/%s", ns, name)
		}
		return identity.Peer{Kind: identity.Pod, Addr: w.Addrs[0], Workload: w}
	}
	protocol, number, _ := strings.Cut(words[2], "/")
	p, err := identity.ParseProtocol(protocol)
	if err != nil {
		t.Fatal(err)
	}
	c := policy.Connection{Client: peer(words[0]), Server: peer(words[1]), Protocol: p}
	if _, err := fmt.Sscan(number, &c.Port); err != nil {
		t.Fatal(err)
	}
	return c
}

func printed(x Explanation) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", x.Decision.Verdict)
	for _, s := range []struct {
		name string
		side Side
	}{{"egress", x.Egress}, {"ingress", x.Ingress}} {
		for _, r := range s.side.Rules {
			fmt.Fprintf(&b, "%s %s %s (%s, %s): %s\n", s.name, r.Match, r.Rule, r.Action, r.Source, r.Why)
		}
		if f := s.side.Fix; f != nil {
			fmt.Fprintf(&b, "%s fix: %s\n%s", s.name, f.Text, f.YAML)
		}
	}
	return b.String()
}
