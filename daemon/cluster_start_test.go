package daemon

import (
	"syscall"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// started is how a workload's start went.
func (p *process) started(w *pod) api.Start {
	p.n.t.Helper()
	row, err := p.workload(w.id)
	p.n.must(err)
	if row.Start == nil {
		p.n.t.Fatalf("%s: nobody was asked who knows it", w.name)
	}
	return *row.Start
}

// TestClusterStart: who connects once, when it starts, is let in by its peer on another node, since ADD
// waits until that node knows it. A node that does not answer holds it up for startWait only.
func TestClusterStart(t *testing.T) {
	l := newClusterLab(t, 2)
	a, b := l.start(0, "startWait: 5s"), l.start(1, "startWait: 200ms")
	cart := l.nodes[0].routed("cart-1")
	cart.serve(8080)
	a.add(cart)
	b.knows("cart-1")
	a.do(api.ApplyRequest{Files: []api.File{allowing("cart", "web")}, Mode: "enforce", Wait: "20s"})

	other := l.nodes[1].pod("job-1")
	b.add(other)
	if s := b.started(other); s.Nodes != 0 {
		t.Errorf("no policy means job-1, and nodes were asked: %+v", s)
	}
	for range 5 {
		web := l.nodes[1].routed("web-1")
		b.add(web)
		if s := b.started(web); s.Nodes != 1 || s.Known != 1 || s.Seconds <= 0 {
			t.Logf("it went on: %+v", s) // a slow machine may take longer than 200 ms
		} else if err := web.reaches(cart.v4, 8080); err != nil {
			t.Errorf("its first connection: %v", err)
		}
		b.cni(web.request("DEL"))
	}

	a.n.must(a.cmd.Process.Signal(syscall.SIGSTOP))
	defer a.cmd.Process.Signal(syscall.SIGCONT)
	late := l.nodes[1].routed("web-2")
	begin := time.Now()
	b.add(late)
	took := time.Since(begin)
	if s := b.started(late); s.Nodes != 1 || s.Known != 0 || took > 5*time.Second {
		t.Errorf("a frozen node: %+v after %v", s, took)
	}
	if s, err := b.client.ClusterStatus(ctx); err != nil || s.Counters.Unheard == 0 || s.Counters.Starts < 7 {
		t.Errorf("counted %+v %v", s.Counters, err)
	}
	a.n.must(a.cmd.Process.Signal(syscall.SIGCONT))
	eventually(t, 15*time.Second, "it is known in the end", func() error { return late.reaches(cart.v4, 8080) })
}
