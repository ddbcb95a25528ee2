package firewall

import (
	"os"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// TestHold restarts the daemon's end while root in the container tries, over and over, to be rid of the
// rules: somebody holds the socket, so the tables belong to it all the time.
func TestHold(t *testing.T) {
	node := newTestNode(t)
	w := node.workload(t)
	sides := both(egress(), ingress())
	w.apply(t, policy.Enforce, sides)

	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		tries := 0
		for {
			select {
			case <-stop:
				stopped <- tries
				return
			default:
			}
			tries++
			_, _ = commandIn(w.path, "nft", "flush", "ruleset")
			_, _ = commandIn(w.path, "nft", "delete", "table", "inet", TableName)
			_, _ = commandIn(w.path, "nft", "insert", "rule", "inet", TableName, "output", "accept")
		}
	}()
	for range 5 {
		held, err := w.ns.Hold()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.ns.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond) // no daemon
		w.ns = testOpen(t, Config{NetNS: w.path, Node: node.path, Interfaces: []Interface{w.ifc}, Socket: held})
		if err := held.Close(); err != nil {
			t.Fatal(err)
		}
		if n := w.apply(t, policy.Enforce, sides); n != 0 {
			t.Errorf("%d changes after a restart without any: somebody changed the rules", n)
		}
		if err := w.ns.Check(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	t.Logf("%d tries", 3*<-stopped)
	// And it can still be changed by us.
	if n := w.apply(t, policy.Learn, policy.Sides{}); n == 0 {
		t.Error("no change where there is one")
	}
}

// TestHoldOther: a socket of a namespace that is gone is no use to the one that has its place.
func TestHoldOther(t *testing.T) {
	node := newTestNode(t)
	a, b := node.workload(t), node.workload(t)
	a.apply(t, policy.Learn, policy.Sides{})
	held, err := a.ns.Hold()
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	b.ns = testOpen(t, Config{NetNS: b.path, Node: node.path, Interfaces: []Interface{b.ifc}, Socket: held})
	b.apply(t, policy.Learn, policy.Sides{})
	if _, err := commandIn(b.path, "nft", "list", "table", "inet", TableName); err != nil {
		t.Error("b has no rules: the socket of a was taken for it")
	}
	if err := a.ns.Check(); err != nil {
		t.Error(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if ns, err := Open(Config{NetNS: b.path, Node: node.path, Socket: null}); err == nil {
		_ = ns.Close()
		t.Error("a file that is no socket was taken up")
	}
}
