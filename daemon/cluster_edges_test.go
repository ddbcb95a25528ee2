package daemon

import (
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// TestClusterEdges: a node that saw nothing itself shows, and writes policies from, what others saw, and
// says what a change there would break; also after a restart.
func TestClusterEdges(t *testing.T) {
	l := newClusterLab(t, 3)
	a, b, c := l.start(0), l.start(1), l.start(2)
	cart, web := l.nodes[1].routed("cart-1"), l.nodes[2].routed("web-1")
	cart.serve(8080)
	b.add(cart)
	c.add(web)
	b.knows("web-1")
	c.knows("cart-1")
	a.knows("web-1")
	for range 3 {
		if err := web.reaches(cart.v4, 8080); err != nil {
			t.Fatal(err)
		}
	}
	edge := func(d *process) (api.Edge, bool) {
		g, err := d.client.Graph(ctx)
		d.n.must(err)
		for _, e := range g.Edges {
			if e.Client == "shop/web" && e.Server == "shop/cart" && e.Port == 8080 {
				return e, true
			}
		}
		return api.Edge{}, false
	}
	sees := func(d *process) {
		t.Helper()
		eventually(t, 30*time.Second, d.n.name+" knows of the edge", func() error {
			if e, ok := edge(d); !ok || len(e.Clients) != 1 || len(e.Servers) != 1 {
				return errNot
			}
			return nil
		})
	}
	sees(a)
	text, err := a.client.Generate(ctx, "shop", "shop/cart", "native")
	if err != nil || !strings.Contains(text, "web") || !strings.Contains(text, "8080") {
		t.Errorf("generated on a: %s %v", text, err)
	}
	p, err := a.client.Preview(ctx, api.ApplyRequest{Files: []api.File{allowing("cart", "nobody")}, Mode: "enforce"})
	if err != nil || len(p.Breaks) != 1 {
		t.Errorf("a previews %+v %v", p, err)
	}
	if e, _ := edge(a); e.Count < 1 || e.Count > 3 {
		t.Errorf("the same connections seen at both ends count %d", e.Count)
	}
	a.stop()
	c.stop()
	a = l.start(0)
	sees(a)
}
