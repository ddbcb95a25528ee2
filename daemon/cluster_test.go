package daemon

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// remote finds another node's workload as a daemon knows it; nil: it does not.
func (p *process) remote(name string) *api.Workload {
	p.n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	list, err := p.client.Workloads(ctx)
	p.n.must(err)
	for _, w := range list {
		if w.Name == name && !w.Local && len(w.Addrs) > 0 {
			return &w
		}
	}
	return nil
}

// knows waits until a daemon knows a workload of another node.
func (p *process) knows(name string) *api.Workload {
	p.n.t.Helper()
	var w *api.Workload
	eventually(p.n.t, 20*time.Second, p.n.name+" knows "+name, func() error {
		if w = p.remote(name); w == nil {
			return errNot
		}
		return nil
	})
	return w
}

func (p *process) forgets(name string) {
	p.n.t.Helper()
	eventually(p.n.t, 20*time.Second, p.n.name+" does not know "+name, func() error {
		if w := p.remote(name); w != nil {
			return fmt.Errorf("%+v", w)
		}
		return nil
	})
}

// TestClusterEndpoints: what runs on one node has its name on the other, until it ends; also after a
// restart without anybody to ask.
func TestClusterEndpoints(t *testing.T) {
	l := newClusterLab(t, 2)
	a, b := l.start(0), l.start(1)
	web, db := l.nodes[0].pod("web-1"), l.nodes[1].pod("db-1")
	a.add(web)
	b.add(db)
	if w := b.knows("web-1"); w.Service != "shop/web" || w.Node != l.nodes[0].name || w.Labels["app"] != "web" || w.Addrs[0] != web.v4.String() {
		t.Errorf("web-1 is %+v", w)
	}
	a.knows("db-1")
	a.kill()
	b.stop()
	b = l.start(1) // alone: a is dead
	if w := b.remote("web-1"); w == nil || w.Service != "shop/web" {
		t.Errorf("a daemon that starts without the others knows web-1 as %+v", w)
	}
	a = l.start(0)
	a.cni(web.request("DEL"))
	b.forgets("web-1")
	a.knows("db-1")
}
