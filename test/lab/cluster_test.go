package lab

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// TestJoined holds that daemons of several nodes are told of their own pods alone, know all others when
// Up returns, over IPv6 too, and that policies name pods of other nodes by their labels.
func TestJoined(t *testing.T) {
	l := up(t, Options{Over6: true, Manifests: threeNodes + `
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: one, namespace: shop}, spec: {podSelector: {matchLabels: {app: c}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]}}
`})
	check(t, l, map[string]string{"shop/a shop/c TCP/8080": "allow by shop/c", "shop/b shop/c TCP/8080": "deny", "shop/b fd00:244:3::10 TCP/8080": "deny"})
	if err := errors.Join(l.Detach(t.Context(), "shop/b"), l.Attach(t.Context(), "shop/b")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := l.Known(ctx); err != nil {
		t.Fatal(err)
	}
	check(t, l, map[string]string{"shop/c shop/b TCP/8080": "allow by shop/b", "shop/b shop/c TCP/8080": "deny"})
	for _, n := range l.Nodes {
		told, err := os.ReadFile(filepath.Join(n.Dir, "inventory", "lab.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range l.Pods {
			if own := p.Node == n.Name; strings.Contains(string(told), `"`+p.Addrs[0].String()+`"`) != own {
				t.Errorf("node %s: its inventory tells of %s on %s: %v, want %v", n.Name, p, p.Node, !own, own)
			}
		}
		c := api.NewClient(n.Socket())
		defer c.Close()
		list, err := c.Workloads(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range list {
			if w.Local != (w.Node == n.Name) {
				t.Errorf("node %s: %s/%s on %s: local %v", n.Name, w.Namespace, w.Name, w.Node, w.Local)
			}
		}
		if len(list) != len(l.Pods) {
			t.Errorf("node %s knows %d pods, want %d", n.Name, len(list), len(l.Pods))
		}
	}
}

// TestOwnBlocks holds that a node claims its pods' blocks, and none where another's pods are in them.
func TestOwnBlocks(t *testing.T) {
	pod := func(name, node string, addrs ...string) *Pod {
		p := &Pod{Namespace: "shop", Name: name, Node: node}
		for _, a := range addrs {
			p.Addrs = append(p.Addrs, netip.MustParseAddr(a))
		}
		return p
	}
	s := &State{
		Nodes: []*Node{
			{Name: "n1", Nets: []Net{{Block4: netip.MustParsePrefix("10.9.0.0/24")}}},
			{Name: "n2", Nets: []Net{{Block4: netip.MustParsePrefix("10.8.0.0/24"), Block6: netip.MustParsePrefix("fd00::/64")}}},
			{Name: "n3"},
		},
		Pods: []*Pod{pod("a", "n1", "10.9.0.5"), pod("b", "n2", "10.8.0.5", "fd00::5"), pod("c", "n3", "10.9.0.6")},
	}
	if got := s.ownBlocks(s.Nodes[0]); got != nil {
		t.Errorf("n1 claims %v, which n3 has a pod in", got)
	}
	if got := s.ownBlocks(s.Nodes[1]); len(got) != 2 {
		t.Errorf("n2 claims %v, want both blocks", got)
	}
}
