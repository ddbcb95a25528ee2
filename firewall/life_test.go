package firewall

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// TestTakeover restarts the daemon's end while traffic runs.
func TestTakeover(t *testing.T) {
	node := newTestNode(t)
	client, server := node.workload(t), node.workload(t)
	server.serve(t, 80, 53)
	sides := both(egress(), ingress(append(churn(1), allows(client)...)...))
	client.apply(t, policy.Learn, policy.Sides{})
	server.apply(t, policy.Enforce, sides)
	streams := startStreams(t, client, server)
	if err := server.ns.Close(); err != nil {
		t.Fatal(err)
	}
	for _, s := range streams {
		s.wait(t, 5) // nobody owns the rules now, and they are in force
	}
	if client.talks("tcp", netip.AddrPortFrom(server.v4, 81), patience(false)) {
		t.Error("a port that is not allowed answers")
	}
	before := testIn(t, server.path, "nft", "-a", "list", "table", "inet", TableName)
	server.open(t)
	if n := server.apply(t, policy.Enforce, sides); n != 0 {
		t.Errorf("%d changes after a restart without any; want none", n)
	}
	if err := server.ns.Check(); err != nil {
		t.Error(err)
	}
	handles := func(s string) string { // the rules only: counters and remembered elements move on
		var out []string
		for _, l := range strings.Split(s, "\n") {
			if strings.Contains(l, "chain ") || strings.Contains(l, "accept # handle") || strings.Contains(l, "hook") {
				out = append(out, l)
			}
		}
		return strings.Join(out, "\n")
	}
	if after := testIn(t, server.path, "nft", "-a", "list", "table", "inet", TableName); handles(after) != handles(before) {
		t.Errorf("rules were written anew:\n%s\n%s", handles(before), handles(after))
	}
	if n := server.apply(t, policy.Enforce, both(egress(), ingress(append(churn(2), allows(client)...)...))); n == 0 {
		t.Error("no change where there is one")
	}
	for _, s := range streams {
		s.wait(t, 5)
		s.end(t)
	}
}

// TestOnlyOneOwner opens a namespace twice.
func TestOnlyOneOwner(t *testing.T) {
	node := newTestNode(t)
	w := node.workload(t)
	w.apply(t, policy.Learn, policy.Sides{})
	_, err := Open(Config{NetNS: w.path, Node: node.path, Interfaces: []Interface{w.ifc}})
	if !errors.Is(err, ErrOwned) {
		t.Fatalf("second Open: %v; want ErrOwned", err)
	}
	if err := w.ns.Check(); err != nil {
		t.Error(err)
	}
}

// TestOthersCannotChange tries what root with CAP_NET_ADMIN would try, in the container and on the
// node.
func TestOthersCannotChange(t *testing.T) {
	node := newTestNode(t)
	w := node.workload(t)
	w.apply(t, policy.Enforce, both(egress(), ingress()))
	guard := GuardPrefix + w.ifc.Host
	for _, try := range []struct{ where, command string }{
		{w.path, "flush ruleset"},
		{w.path, "delete table inet bulkhead"},
		{w.path, "flush chain inet bulkhead output"},
		{w.path, "add rule inet bulkhead output accept"},
		{w.path, "insert rule inet bulkhead out4 accept"},
		{w.path, "add element inet bulkhead egress4_any { 10.77.0.1 }"},
		{w.path, "flush set inet bulkhead denied_out4"},
		{w.path, "add chain inet bulkhead mine { type filter hook output priority -400; policy accept; }"},
		{w.path, "add table inet bulkhead { flags dormant; }"},
		{node.path, "flush ruleset"},
		{node.path, "delete table netdev " + guard},
		{node.path, "add rule netdev " + guard + " sender accept"},
	} {
		// Some of these are refused, and flush ruleset skips what it may not touch.
		_, _ = commandIn(try.where, "nft", strings.Fields(try.command)...)
		if err := w.ns.Check(); err != nil {
			t.Errorf("nft %s: %v", try.command, err)
		}
	}
}

func commandIn(path, name string, args ...string) (string, error) {
	var out strings.Builder
	cmd := testCommand(append([]string{"ip", "netns", "exec", filepath.Base(path), name}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// TestRepairsDrift changes the rules while nobody owns them, which is when it can be done.
func TestRepairsDrift(t *testing.T) {
	for _, try := range []string{
		"delete table inet bulkhead",
		"flush chain inet bulkhead output",
		"add chain inet bulkhead output { policy accept; }",
		"insert rule inet bulkhead out4 accept",
		"add element inet bulkhead egress4_any { 10.77.0.1 }",
		"add element inet bulkhead egress4 { 10.77.0.1 . tcp . 22 }",
		"add element inet bulkhead egress4_nets { 0.0.0.0/1 . tcp . 0-65535 }",
		"add element inet bulkhead peernets4 { 0.0.0.0/1 }",
		"add element inet bulkhead egress4 { * }",
		"delete element inet bulkhead egress4 { 10.77.0.9 . tcp . 80 }",
		"add chain inet bulkhead mine { type filter hook output priority -400; policy accept; }",
		"add set inet bulkhead mine { type ipv4_addr; }",
		"add counter inet bulkhead mine",
		"add quota inet bulkhead mine { over 1 bytes; }",
	} {
		t.Run(try, func(t *testing.T) {
			node := newTestNode(t)
			w := node.workload(t)
			sides := both(egress(testEntry("10.77.0.9", identity.TCP, 80, 80)), ingress())
			w.apply(t, policy.Enforce, sides)
			if err := w.ns.Close(); err != nil {
				t.Fatal(err)
			}
			if out, err := commandIn(w.path, "nft", try); err != nil {
				t.Fatalf("nft %s: %v\n%s", try, err, out)
			}
			w.open(t)
			w.ns.applied = Compile(w.spec(policy.Enforce, sides))
			var drift *Drift
			if err := w.ns.Check(); !errors.As(err, &drift) {
				t.Fatalf("Check: %v; want a Drift", err)
			}
			t.Log(drift)
			if n := w.apply(t, policy.Enforce, sides); n == 0 {
				t.Error("nothing was repaired")
			}
			if err := w.ns.Check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestNamespaceGone deletes the namespace under an open Namespace.
func TestNamespaceGone(t *testing.T) {
	node := newTestNode(t)
	w := &testWorkload{t: t, node: node, path: "/run/netns/" + filepath.Base(node.path) + "w"}
	testRun(t, "ip", "netns", "add", filepath.Base(w.path))
	testRun(t, "ip", "-n", filepath.Base(node.path), "link", "add", "gone0", "type", "veth", "peer", "name", "eth0", "netns", filepath.Base(w.path))
	w.ifc = shopInterface("gone0")
	w.apply(t, policy.Enforce, shopSides())
	testRun(t, "ip", "netns", "del", filepath.Base(w.path))
	_, err := w.ns.Apply(Compile(w.spec(policy.Learn, shopSides())))
	if !errors.Is(err, ErrGone) {
		t.Errorf("Apply: %v; want ErrGone", err)
	}
	if err := w.ns.Check(); !errors.Is(err, ErrGone) {
		t.Errorf("Check: %v; want ErrGone", err)
	}
	if _, err := w.ns.Cut(context.Background(), w.spec(policy.Enforce, shopSides())); !errors.Is(err, ErrGone) {
		t.Errorf("Cut: %v; want ErrGone", err)
	}
	if err := w.ns.Remove(); err != nil {
		t.Error(err)
	}
	if left := testIn(t, node.path, "nft", "list", "tables"); left != "" {
		t.Errorf("left on the node: %s", left)
	}
	if _, err := w.ns.Apply(Compile(Spec{})); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Apply after Remove: %v; want os.ErrClosed", err)
	}
	// The veth goes with the last hold on the namespace.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := commandIn(node.path, "ip", "link", "show", "gone0"); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the namespace is still held")
		}
	}
}

// TestNoInterface: a guard that stands nowhere is an error, and says so.
func TestNoInterface(t *testing.T) {
	node := newTestNode(t)
	w := node.workload(t)
	good := w.ifc
	for _, row := range []struct {
		name string
		make func(*Interface)
		want string
	}{
		{"absent", func(i *Interface) { i.Host = "nosuch0" }, "interface nosuch0 in the node: no such interface"},
		{"replaced", func(i *Interface) { i.HostIndex = 4711 }, "it was replaced by another of that name"},
		{"no MAC", func(i *Interface) { i.MAC = nil }, "want one of Ethernet"},
		{"absent inside", func(i *Interface) { i.Host, i.Name = "", "nosuch0" }, "no such interface"},
	} {
		w.ifc = good
		row.make(&w.ifc)
		ns := testOpen(t, Config{NetNS: w.path, Node: node.path, Interfaces: []Interface{w.ifc}})
		_, err := ns.Apply(Compile(w.spec(policy.Enforce, shopSides())))
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v; want %q", row.name, err, row.want)
		}
		if out := testIn(t, w.path, "nft", "list", "tables") + testIn(t, node.path, "nft", "list", "tables"); out != "" {
			t.Errorf("%s: something is in force: %s", row.name, out)
		}
		_ = ns.Close()
	}
}

// TestManyEntries applies ten thousand exact entries; the ones at the ends must work.
func TestManyEntries(t *testing.T) {
	node := newTestNode(t)
	client, server := node.workload(t), node.workload(t)
	server.serve(t, 80, 53)
	client.apply(t, policy.Learn, policy.Sides{})
	entries := append(manyEntries(10000), allows(client)...)
	start := time.Now()
	server.apply(t, policy.Enforce, both(egress(entries...), ingress(entries...)))
	t.Logf("10,000 entries on both sides, compiled and applied: %v", time.Since(start))
	if err := server.ns.Check(); err != nil {
		t.Error(err)
	}
	for _, v6 := range []bool{false, true} {
		for _, p := range probes {
			if !p.try(client, server, v6, patience(true)) {
				t.Errorf("%s %s: no answer", familyName(v6), p.name)
			}
		}
	}
	start = time.Now()
	if n := server.apply(t, policy.Enforce, both(egress(entries[1:]...), ingress(entries...))); n == 0 {
		t.Error("no change")
	}
	t.Logf("one entry less, compiled and applied: %v", time.Since(start))
}

func manyEntries(n int) []policy.Entry {
	out := make([]policy.Entry, n)
	for i := range out {
		a := netip.AddrFrom4([4]byte{10, 100, byte(i >> 8), byte(i)})
		if i%4 == 3 {
			a = netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x11, 14: byte(i >> 8), 15: byte(i)})
		}
		out[i] = policy.Entry{Peer: netip.PrefixFrom(a, a.BitLen()), Protocol: identity.TCP, Port: 8080, EndPort: 8080}
	}
	return out
}
