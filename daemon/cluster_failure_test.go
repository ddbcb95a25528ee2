package daemon

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// TestClusterDead: what a dead node told is believed for grace and no longer, and again when it is back;
// policies mean the addresses accordingly.
func TestClusterDead(t *testing.T) {
	l := newClusterLab(t, 2)
	a, b := l.start(0, "grace: 4s"), l.start(1)
	cart, web := l.nodes[0].routed("cart-1"), l.nodes[1].routed("web-1")
	cart.serve(8080)
	a.add(cart)
	b.add(web)
	a.knows("web-1")
	b.knows("cart-1")
	a.do(api.ApplyRequest{Files: []api.File{allowing("cart", "web")}, Mode: "enforce", Wait: "20s"})
	a.wantReach("web may", web, cart, 8080, true)
	b.kill()
	time.Sleep(time.Second)
	if a.remote("web-1") == nil {
		t.Error("web-1 was forgotten before its node was dead for 4 s")
	}
	a.forgets("web-1")
	eventually(t, 10*time.Second, "an address of nobody is let in no more", func() error {
		if web.reaches(cart.v4, 8080) == nil {
			return errNot
		}
		return nil
	})
	l.start(1)
	a.knows("web-1")
	eventually(t, 10*time.Second, "web is let in again", func() error { return web.reaches(cart.v4, 8080) })
}

// TestClusterForget: a node that is removed for good is gone at once, on all nodes, and does not come
// back with the key that it had, until somebody lets it.
func TestClusterForget(t *testing.T) {
	l := newClusterLab(t, 3)
	a, b, c := l.start(0), l.start(1), l.start(2)
	web := l.nodes[1].pod("web-1")
	b.add(web)
	a.knows("web-1")
	c.knows("web-1")
	name := l.nodes[1].name
	if _, err := a.client.ClusterForget(ctx, api.ClusterForget{Node: name}); !api.HasCode(err, api.Conflict) {
		t.Errorf("forgetting a node that is alive: %v", err)
	}
	b.stop()
	state := func(d *process, want string) {
		t.Helper()
		eventually(t, 30*time.Second, d.n.name+" has "+name+" as "+want, func() error {
			s, err := d.client.ClusterStatus(ctx)
			d.n.must(err)
			for _, m := range s.Members {
				if m.Node == name && m.State == want {
					return nil
				}
				if m.Node == name && want == "" {
					return errNot
				}
			}
			if want == "" {
				return nil
			}
			return errNot
		})
	}
	state(a, "dead")
	state(c, "dead")
	if _, err := a.client.ClusterForget(ctx, api.ClusterForget{Node: name}); err != nil {
		t.Fatal(err)
	}
	if w := a.remote("web-1"); w != nil {
		t.Errorf("still known: %+v", w)
	}
	c.forgets("web-1")
	b = l.start(1)
	time.Sleep(2 * time.Second) // it tries to come back meanwhile
	state(a, "")
	state(c, "")
	a.stop()
	a = l.start(0)
	time.Sleep(time.Second)
	if w := a.remote("web-1"); w != nil {
		t.Errorf("a node that is gone for good came back by a restart: %+v", w)
	}
	if _, err := c.client.ClusterForget(ctx, api.ClusterForget{Node: name, Back: true}); err != nil {
		t.Fatal(err)
	}
	b.stop() // or it comes back by itself, in its own time
	l.start(1)
	a.knows("web-1")
}

// TestClusterDamaged: a damaged stored state is told of, costs no policy, and is fetched anew.
func TestClusterDamaged(t *testing.T) {
	l := newClusterLab(t, 2)
	a, b := l.start(0), l.start(1)
	web := l.nodes[1].pod("web-1")
	b.add(web)
	a.knows("web-1")
	a.do(api.ApplyRequest{Files: []api.File{allowing("cart", "web")}, Wait: "20s"})
	a.stop()
	db, err := bbolt.Open(filepath.Join(l.nodes[0].dir, "state", "state.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bucketCluster)
		damaged := append([]byte{}, bucket.Get(keySnapshot)...)
		damaged[len(damaged)/2] ^= 1
		return bucket.Put(keySnapshot, damaged)
	})
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	a = l.start(0)
	if got := a.rows(); got != "cart=web" {
		t.Errorf("in force %q", got)
	}
	if !strings.Contains(a.out.String(), "not usable") {
		t.Error("nobody was told")
	}
	a.knows("web-1")
	b.do(api.ApplyRequest{Do: api.DoDelete, Names: []api.PolicyName{{Name: "cart"}}})
	l.agree("deleted on b", "", a, b)
}

// TestClusterPartition: apart, both sides go on taking writes and enforcing; together again they hold the
// same, with the later of two writes.
func TestClusterPartition(t *testing.T) {
	l := newClusterLab(t, 2)
	a, b := l.start(0), l.start(1)
	a.do(api.ApplyRequest{Files: []api.File{allowing("cart", "web")}, Wait: "20s"})
	l.cut(1, true)
	r := a.do(api.ApplyRequest{Files: []api.File{allowing("cart", "a"), allowing("mine", "a")}, Wait: "1s"})
	if len(r.Nodes) != 1 || r.Nodes[0].InForce || r.Nodes[0].Error == "" {
		t.Errorf("a node that is cut off: %+v", r.Nodes)
	}
	b.do(api.ApplyRequest{Files: []api.File{allowing("cart", "b"), allowing("other", "b")}})
	a.wantRows("a apart", "cart=a mine=a")
	b.wantRows("b apart", "cart=b other=b")
	l.cut(1, false)
	eventually(t, 60*time.Second, "healed", func() error {
		x, y := a.rows(), b.rows()
		if x == y && x == "cart=b mine=a other=b" {
			return nil
		}
		return &api.Error{Message: x + " and " + y}
	})
	eventually(t, 20*time.Second, "the same state", func() error {
		x, err := a.client.ClusterStatus(ctx)
		a.n.must(err)
		y, err := b.client.ClusterStatus(ctx)
		b.n.must(err)
		if x.Registers != y.Registers {
			return errNot
		}
		return nil
	})
}

// TestClusterLeave: a node that was told to leave says goodbye when it stops: the others do not wait for
// its grace. It comes back as what it was.
func TestClusterLeave(t *testing.T) {
	l := newClusterLab(t, 2)
	a, b := l.start(0), l.start(1)
	b.add(l.nodes[1].pod("web-1"))
	a.knows("web-1")
	if r, err := b.client.ClusterLeave(ctx, api.ClusterLeave{}); err != nil || r.Node != l.nodes[1].name {
		t.Fatalf("leave: %+v, %v", r, err)
	}
	b.stop()
	a.forgets("web-1")
	s, err := a.client.ClusterStatus(ctx)
	a.n.must(err)
	for _, m := range s.Members {
		if m.Node == l.nodes[1].name && m.State != "left" {
			t.Errorf("a node that said goodbye is %s", m.State)
		}
	}
	l.start(1)
	a.knows("web-1")
}
