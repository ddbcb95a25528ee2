package lab

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/bulkhead-firewall/bulkhead/kube"
)

var update = flag.Bool("update", false, "rewrite the expected text in testdata")

// TestPlan plans a lab from each archive's manifests and compares all of it: nodes, blocks,
// gateways, addresses, Services. Nothing is made.
func TestPlan(t *testing.T) {
	archives, err := filepath.Glob("testdata/plan/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("testdata/plan: %v, %d files", err, len(archives))
	}
	for _, path := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var got string
			for _, f := range ar.Files {
				if f.Name == "in.yaml" {
					got = planned(t, f.Data)
				}
			}
			i := slices.IndexFunc(ar.Files, func(f txtar.File) bool { return f.Name == "want" })
			if i < 0 {
				t.Fatal("no file \"want\"")
			}
			if *update {
				ar.Files[i].Data = []byte(got)
				if err := os.WriteFile(path, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(string(ar.Files[i].Data), got); d != "" {
				t.Errorf("%s (-want +got):\n%s", path, d)
			}
		})
	}
}

func planned(t *testing.T, manifests []byte) string {
	t.Helper()
	inv, err := kube.ParseManifests("in.yaml", manifests)
	if err != nil {
		t.Fatal(err)
	}
	s := &State{Name: "x", Dir: "/run/bulkhead-lab/x"}
	notes, err := plan(s, inv)
	if err != nil {
		return "error\n" + err.Error() + "\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "outside %v\n", s.Outside.Addrs)
	for _, n := range s.Nodes {
		fmt.Fprintf(&b, "node %s in %s %v\n", n.Name, n.NetNS, n.Addrs)
		for _, net := range n.Nets {
			fmt.Fprintf(&b, "  %s %s gateway %s, %s gateway %s\n", net.Bridge, prefix(net.Block4), addr(net.Gateway4), prefix(net.Block6), addr(net.Gateway6))
		}
	}
	for _, p := range s.Pods {
		fmt.Fprintf(&b, "pod %s in %s on %s %v network %s\n", p, p.NetNS, p.Node, p.Addrs, networkName(p))
	}
	for _, v := range s.VIPs {
		fmt.Fprintf(&b, "vip %s %s %s -> %v\n", v.Service, netip.AddrPortFrom(v.Addr, v.Port), v.Protocol, v.Backends)
	}
	fmt.Fprintf(&b, "resolvers %v\n", s.Resolvers)
	for _, n := range notes {
		fmt.Fprintf(&b, "note %s\n", n)
	}
	return b.String()
}

func prefix(p netip.Prefix) string {
	if !p.IsValid() {
		return "-"
	}
	return p.String()
}

func addr(a netip.Addr) string {
	if !a.IsValid() {
		return "-"
	}
	return a.String()
}
