package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// TestFaults lets the kernel answer ENOBUFS, EINTR, EBUSY or nothing, once, at each step of a change,
// before or after it has done it: the change is worked out anew from what is in force, and takes force.
func TestFaults(t *testing.T) {
	node := newTestNode(t)
	w := node.workload(t)
	rows := []policy.Sides{
		egress(testEntry("10.77.0.9", identity.TCP, 80, 80)),
		both(denyOut(egress(allBlocks()...), churn(3)...), ingress(churn(2)...)),
	}
	w.apply(t, policy.Enforce, rows[0])
	for i, fault := range []error{unix.ENOBUFS, unix.EINTR, unix.EBUSY, errAgain} {
		for _, after := range []bool{false, true} {
			for at, struck := 0, true; struck; at++ {
				n := 0
				struck = false
				strike := func(done bool) error {
					if done != after {
						return nil
					}
					if n++; n-1 != at {
						return nil
					}
					struck = true
					return fault
				}
				w.ns.in.fault, w.ns.at.fault = strike, strike
				_, err := w.ns.Apply(Compile(w.spec(policy.Enforce, rows[(i+at)%2])))
				w.ns.in.fault, w.ns.at.fault = nil, nil
				if err != nil {
					t.Errorf("%v at step %d, after %v: %v", fault, at, after, err)
				}
				if err := w.ns.Check(); err != nil {
					t.Errorf("%v at step %d, after %v: %v", fault, at, after, err)
				}
				if at > 200 {
					t.Fatal("no end")
				}
			}
		}
	}
	// For ever: that is an error, which changes nothing about the next time.
	w.apply(t, policy.Enforce, rows[1])
	w.ns.in.fault = func(bool) error { return unix.ENOBUFS }
	if _, err := w.ns.Apply(Compile(w.spec(policy.Enforce, rows[0]))); !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("with ENOBUFS for ever: %v", err)
	}
	w.ns.in.fault = nil
	w.apply(t, policy.Enforce, rows[1])
	if err := w.ns.Check(); err != nil {
		t.Error(err)
	}
}

// TestContention changes and checks rules while somebody in the namespace changes his own all the
// while: generations clash, lists are interrupted.
func TestContention(t *testing.T) {
	node := newTestNode(t)
	w := node.workload(t)
	w.apply(t, policy.Enforce, egress())
	stop, stopped := make(chan struct{}), make(chan int, 1)
	file, err := OpenNamespace(w.path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	other, err := openSocket(file, w.path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	go func() {
		n := 0
		defer func() { stopped <- n }()
		table := &Table{Family: FamilyINet, Name: "busy"}
		for ; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			b := newBatch()
			b.newTable(table, 0)
			Change{Op: DeleteTable, Table: table}.encode(b, 0)
			_ = other.commit(b)
			time.Sleep(200 * time.Microsecond)
		}
	}()
	for i := range 60 {
		w.ns.unsure = true // so that it is read
		w.apply(t, policy.Enforce, egress(testEntry(fmt.Sprintf("10.77.1.%d", i), identity.TCP, 80, 80)))
	}
	close(stop)
	t.Logf("%d changes of somebody else", <-stopped)
	if err := w.ns.Check(); err != nil {
		t.Error(err)
	}
}

// TestNobodyFillsOurBuffer: what a process in the container sends to our socket is refused.
func TestNobodyFillsOurBuffer(t *testing.T) {
	node := newTestNode(t)
	w := node.workload(t)
	w.apply(t, policy.Enforce, egress())
	err := testForge(w.path, unix.NETLINK_NETFILTER, w.ns.in.port, 0, unix.NLMSG_ERROR, make([]byte, 20))
	if !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a message to our socket: %v; want it refused", err)
	}
}

// TestOldKernels runs on what the probe finds of older kernels: without persist, without owner.
func TestOldKernels(t *testing.T) {
	node := newTestNode(t)
	w, peer := node.workload(t), node.workload(t)
	peer.serve(t, 80, 53)
	w.unguarded()
	sides := egress(testEntry(peer.v4.String(), identity.TCP, 81, 81))
	w.apply(t, policy.Learn, sides) // the probe has run
	denied := func(what string) {
		t.Helper()
		if err := w.ns.Check(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if w.talks("tcp", netip.AddrPortFrom(peer.v4, 80), 200*time.Millisecond) {
			t.Errorf("%s: what is denied got through", what)
		}
	}
	kernel.Lock()
	real := *kernel.known
	kernel.Unlock()
	t.Cleanup(func() {
		kernel.Lock()
		*kernel.known = real
		kernel.Unlock()
	})
	for i, c := range []struct{ name, warning string }{
		{"without persist", "vanish when bulkheadd stops"}, {"without owner", "can change its own rules"},
	} {
		kernel.Lock()
		kernel.known.tableFlags, kernel.known.warnings = tableKinds[i+1].tableFlags, tableKinds[i+1].warnings
		kernel.Unlock()
		for range 2 { // what was there before, and what this one leaves
			if err := w.ns.Close(); err != nil {
				t.Fatal(err)
			}
			w.open(t)
			w.apply(t, policy.Enforce, sides)
			denied(c.name)
		}
		if got := strings.Join(w.ns.Warnings(), "\n"); !strings.Contains(got, c.warning) {
			t.Errorf("%s: warnings %q", c.name, got)
		}
	}
	// Anybody may flush now: it is found, and put back.
	testIn(t, w.path, "nft", "flush", "ruleset")
	var drift *Drift
	if err := w.ns.Check(); !errors.As(err, &drift) {
		t.Errorf("a flush is not found: %v", err)
	}
	w.apply(t, policy.Enforce, sides)
	denied("after a flush")
}
