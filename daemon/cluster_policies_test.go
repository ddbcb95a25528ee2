package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/api"
)

// agree waits until daemons have the same in force, as rows tells it.
func (l *clusterLab) agree(when, want string, daemons ...*process) {
	l.t.Helper()
	for _, d := range daemons {
		eventually(l.t, 20*time.Second, when+": "+d.n.name+" has "+want, func() error {
			if got := d.rows(); got != want {
				return &api.Error{Message: "it has " + got}
			}
			return nil
		})
	}
}

// wantNodes wants every other node to have a change in force.
func wantNodes(t *testing.T, r api.ApplyResult, count int) {
	t.Helper()
	if len(r.Nodes) != count {
		t.Errorf("%d nodes have answered, want %d: %+v", len(r.Nodes), count, r.Nodes)
	}
	for _, n := range r.Nodes {
		if !n.InForce || n.Workloads != n.Of || n.Seconds <= 0 {
			t.Errorf("%+v", n)
		}
	}
}

// TestClusterPolicies: what is applied on one node holds between containers of two others, and goes on
// being a generation that can be rolled back, from any node.
func TestClusterPolicies(t *testing.T) {
	l := newClusterLab(t, 3)
	a, b, c := l.start(0), l.start(1), l.start(2)
	cart, web := l.nodes[1].routed("cart-1"), l.nodes[2].routed("web-1")
	cart.serve(8080)
	b.add(cart)
	c.add(web)
	b.knows("web-1")
	c.knows("cart-1")
	a.knows("web-1")
	b.wantReach("without a policy", web, cart, 8080, true)

	r := a.do(api.ApplyRequest{Files: []api.File{allowing("cart", "nobody")}, Mode: "enforce", Wait: "20s"})
	wantNodes(t, r, 2)
	l.agree("applied on a", "cart=nobody", a, b, c)
	b.wantReach("nobody may", web, cart, 8080, false)
	g, err := b.client.History(ctx, 1)
	if err != nil || g[0].Who != l.nodes[0].name || g[0].Cause != causeCluster || g[0].Created != 1 || g[0].Modes != 1 {
		t.Errorf("b's newest generation is %+v %v", g, err)
	}

	wantNodes(t, c.do(api.ApplyRequest{Files: []api.File{allowing("cart", "web")}, Wait: "20s"}), 2)
	b.wantReach("web may", web, cart, 8080, true)
	wantNodes(t, b.do(api.ApplyRequest{Do: api.DoRollback, Wait: "20s"}), 2)
	l.agree("rolled back on b", "cart=nobody", a, b, c)
	b.wantReach("nobody may again", web, cart, 8080, false)

	if _, err := a.client.SetMode(ctx, api.ServiceMode{Service: "shop/cart", Mode: "learn"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "cart learns on b", func() error { return web.reaches(cart.v4, 8080) })
	a.do(api.ApplyRequest{Do: api.DoDelete, Names: []api.PolicyName{{Name: "cart"}}})
	l.agree("deleted on a", "", a, b, c)

	s, err := a.client.ClusterStatus(ctx)
	if err != nil || len(s.Members) != 3 || s.Convergence == nil || s.Encrypted == "" {
		t.Errorf("%+v %v", s, err)
	}
	eventually(t, 20*time.Second, "all hold the same", func() error {
		s, err := a.client.ClusterStatus(ctx)
		for _, m := range s.Members {
			if err == nil && (!m.Agrees || m.Behind+m.Ahead > 0 || m.State != "alive") {
				return errNot
			}
		}
		return err
	})
}

// TestClusterRestart: a node that was away takes what was written meanwhile, and wins nothing with what
// it had; a write that was acknowledged survives a crash right after.
func TestClusterRestart(t *testing.T) {
	l := newClusterLab(t, 2)
	a, b := l.start(0), l.start(1)
	a.do(api.ApplyRequest{Files: []api.File{allowing("cart", "web"), allowing("old", "web")}, Wait: "20s"})
	l.agree("applied on a", "cart=web old=web", a, b)
	b.stop()
	a.do(api.ApplyRequest{Do: api.DoDelete, Names: []api.PolicyName{{Name: "old"}}})
	a.do(api.ApplyRequest{Files: []api.File{allowing("cart", "api")}})
	a.kill() // right after the answer
	b = l.start(1)
	l.agree("b alone", "cart=web old=web", b)
	b.do(api.ApplyRequest{Files: []api.File{allowing("new", "b")}})
	a = l.start(0)
	l.agree("both are back", "cart=api new=b", a, b)
	a.stop()
	b.stop()
	for _, d := range []*process{a, b} {
		if said := d.out.String(); strings.Contains(said, "leak:") {
			t.Errorf("goroutines are left at the end: %s", said[strings.Index(said, "leak:"):])
		}
	}
	b = l.start(1)
	l.agree("b alone again", "cart=api new=b", b)
}

// TestClusterAloneFirst: what nodes had before they met is everybody's; of two texts of one name the
// later counts.
func TestClusterAloneFirst(t *testing.T) {
	l := newClusterLab(t, 2)
	a, b := l.nodes[0].start(), l.nodes[1].start()
	a.do(api.ApplyRequest{Files: []api.File{allowing("cart", "a"), allowing("mine", "a")}})
	b.do(api.ApplyRequest{Files: []api.File{allowing("cart", "b"), allowing("other", "b")}})
	a.stop()
	b.stop()
	a, b = l.start(0), l.start(1)
	l.agree("they met", "cart=b mine=a other=b", a, b)
}

// TestClusterRefused: what one node cannot take is said there and keeps nothing else away.
func TestClusterRefused(t *testing.T) {
	l := newClusterLab(t, 2)
	a, b := l.start(0), l.start(1)
	file := allowing("cart", "file")
	b.n.must(os.WriteFile(filepath.Join(b.n.dir, "policies", "cart.yaml"), []byte(file.Data), 0o600))
	l.agree("b has a file", "cart=file", b)
	r := a.do(api.ApplyRequest{Files: []api.File{allowing("cart", "web"), allowing("more", "web")}, Wait: "20s"})
	if len(r.Nodes) != 1 || r.Nodes[0].InForce || !strings.Contains(r.Nodes[0].Error, "cart.yaml") {
		t.Errorf("%+v", r.Nodes)
	}
	l.agree("the rest is in force", "cart=file more=web", b)
	s, err := b.client.Status(ctx)
	if err != nil || !strings.Contains(strings.Join(s.PolicyErrors, "\n"), "which holds on") {
		t.Errorf("status says %q %v", s.PolicyErrors, err)
	}
	b.wantAlert("cluster", "what b cannot take", func(x alert.Alert) bool { return strings.Contains(x.Reason, l.nodes[0].name) })
}
