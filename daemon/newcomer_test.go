package daemon

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/api"
)

// in runs a program in a namespace; it must succeed.
func (n *node) in(ns string, argv ...string) string {
	n.t.Helper()
	out, err := exec.Command("ip", append([]string{"netns", "exec", ns}, argv...)...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%v in %s: %v %s", argv, ns, err, out)
	}
	return string(out)
}

// soon waits for a condition, and says how long it took.
func (n *node) soon(what string, f func() bool) {
	n.t.Helper()
	began := time.Now()
	for !f() {
		if time.Since(began) > 30*time.Second {
			n.t.Fatalf("%s: not in 30 s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	n.t.Logf("%s after %v", what, time.Since(began).Round(time.Millisecond))
}

// TestLateInterfaces: an interface that comes later is guarded at once, whether an ADD tells of it or
// not; only where none does it is told. One without an end on the host is a gap, which is told too.
func TestLateInterfaces(t *testing.T) {
	n := newNode(t)
	d := n.start("defaultMode: enforce")
	web := n.pod("web-1")
	d.add(web)
	tables := func(ns string) string { return n.in(ns, "nft", "list", "tables") }

	web.wire("eth1", "veth901", mustAddr("10.88.9.1"), mustAddr("fd00:88::901"))
	second := web.request("ADD")
	second.IfName, second.Network = "eth1", "other"
	second.Interfaces = []api.CNIInterface{{Name: "eth1", Addrs: []string{"10.88.9.1/24", "fd00:88::901/64"}}}
	d.cni(second)
	time.Sleep(newcomerWait + time.Second) // in which a false alert would come
	if all := d.alertsOf(alert.Tamper); len(all) > 0 {
		t.Errorf("an interface that ADD told of: %+v", all)
	}

	web.wire("eth2", "veth902", mustAddr("10.88.9.2"), mustAddr("fd00:88::902"))
	n.soon("an interface without ADD is guarded", func() bool { return strings.Contains(tables(n.name), "netdev bulkhead-veth902") })
	n.soon("with its address", func() bool {
		return strings.Contains(n.in(n.name, "nft", "list", "table", "netdev", "bulkhead-veth902"), "10.88.9.2")
	})
	d.wantAlert(alert.Tamper, "the interface", func(a alert.Alert) bool { return strings.Contains(a.Reason, "interface eth2 (veth) was added") })
	n.in(web.nsName, "ip", "addr", "add", "10.88.9.77/24", "dev", "eth2")
	d.wantAlert(alert.Tamper, "its address", func(a alert.Alert) bool { return strings.Contains(a.Reason, "10.88.9.77") })
	if list := n.in(n.name, "nft", "list", "table", "netdev", "bulkhead-veth902"); strings.Contains(list, "10.88.9.77") {
		t.Errorf("an address that the container added later may send:\n%s", list)
	}
	n.in(n.name, "ip", "link", "del", "veth902")
	n.soon("its guard goes with it", func() bool { return !strings.Contains(tables(n.name), "veth902") })

	n.in(n.name, "ip", "link", "add", "mv9", "link", "br0", "type", "macvlan", "mode", "bridge")
	n.in(n.name, "ip", "link", "set", "mv9", "netns", web.nsName)
	n.in(web.nsName, "ip", "link", "set", "mv9", "up")
	n.soon("without an end on the host the chain is inside", func() bool { return strings.Contains(tables(web.nsName), "netdev bulkhead-mv9") })
	d.wantAlert(alert.Tamper, "the gap", func(a alert.Alert) bool {
		return strings.Contains(a.Reason, "interface mv9 has no end on the host") && a.Severity == alert.Medium
	})
	st, err := d.client.Status(ctx)
	n.must(err)
	if !strings.Contains(fmt.Sprint(st.Warnings), "mv9 has no end on the host") {
		t.Errorf("status says nothing of the gap: %q", st.Warnings)
	}
	// Renaming it does not shake the chain off.
	n.in(web.nsName, "ip", "link", "set", "mv9", "name", "evil9")
	n.soon("the chain follows the interface", func() bool { return strings.Contains(tables(web.nsName), "netdev bulkhead-evil9") })
	n.in(web.nsName, "ip", "link", "del", "evil9")
	n.soon("it goes with it", func() bool { return !strings.Contains(tables(web.nsName), "evil9") })
	// What is left can be changed all the same.
	d.apply("", api.File{Name: "cart.yaml", Data: cartOnly})
	rows, err := d.client.Workloads(ctx)
	n.must(err)
	if len(rows) != 1 || rows[0].Error != "" || !rows[0].Guarded {
		t.Errorf("workload %+v", rows)
	}
}

// TestSeizedWhileAway: without a holder, root in the container makes our table its own while the daemon
// is away. The next daemon takes it back and says so, and the guard held meanwhile.
func TestSeizedWhileAway(t *testing.T) {
	n := newNode(t)
	lines := []string{"defaultMode: enforce", `holder: ""`}
	d := n.start(lines...)
	web, cart, bad := n.pod("web-1"), n.pod("cart-1"), n.pod("bad-1")
	d.add(web, cart, bad)
	cart.serve(8080)
	d.apply("", api.File{Name: "cart.yaml", Data: cartOnly})
	d.kill()
	// nft 1.0.6 knows the owner's flag, but not persist: the table is another one, and its own.
	n.in(cart.nsName, "nft", "delete", "table", "inet", "bulkhead")
	thief := exec.Command("ip", "netns", "exec", cart.nsName, "nft", "-i")
	in, err := thief.StdinPipe()
	n.must(err)
	n.must(thief.Start())
	t.Cleanup(func() { _ = in.Close(); _ = thief.Wait() })
	_, err = fmt.Fprintln(in, "add table inet bulkhead { flags owner; }")
	n.must(err)
	n.soon("the table is seized", func() bool {
		return exec.Command("ip", "netns", "exec", cart.nsName, "nft", "list", "table", "inet", "bulkhead").Run() == nil
	})
	d = n.start(lines...)
	d.wantAlert(alert.Tamper, "the seizure", func(a alert.Alert) bool {
		return strings.Contains(a.Reason, "was taken over") && strings.Contains(a.Reason, "it was taken back") &&
			strings.Contains(a.Reason, fmt.Sprintf("by nft (pid %d)", thief.Process.Pid)) && a.Severity == alert.Critical
	})
	if bad.reaches(cart.v4, 8080) == nil {
		t.Error("what is denied got through")
	}
	n.must(web.reaches(cart.v4, 8080))
}

// TestGoroutines: a workload more costs one goroutine, its routine.
func TestGoroutines(t *testing.T) {
	n := newNode(t)
	d := n.start()
	d.add(n.pod("web-1"))
	before, _ := d.size()
	const more = 8
	for i := range more {
		d.add(n.pod(fmt.Sprintf("cart-%d", i)))
	}
	after, _ := d.size()
	t.Logf("%d goroutines, %d with %d workloads more", before, after, more)
	if after > before+more+2 {
		t.Errorf("%d workloads cost %d goroutines", more, after-before)
	}
}
