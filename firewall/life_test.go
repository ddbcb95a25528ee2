package firewall

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// stream exchanges one small message after another until it is stopped; every one must come back.
// Over UDP nothing is sent twice, so one lost packet ends it.
type stream struct {
	name  string
	conn  net.Conn
	count atomic.Int64
	err   error
	stop  context.CancelFunc
	done  sync.WaitGroup
	over  chan struct{}
}

// stream starts one from the workload; the test fails if it ends before it is stopped.
func (w *testWorkload) stream(t testing.TB, network string, to netip.AddrPort) *stream {
	t.Helper()
	c, err := w.dial(network, to, patience(true))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &stream{name: network + " to " + to.String(), conn: c, stop: cancel, over: make(chan struct{})}
	s.done.Add(1)
	go func() {
		defer s.done.Done()
		defer close(s.over)
		for i := 0; ctx.Err() == nil; i++ {
			if !exchange(c, []byte(fmt.Sprintf("%08d", i)), patience(true)) {
				s.err = fmt.Errorf("message %d did not come back", i)
				return
			}
			s.count.Add(1)
			time.Sleep(500 * time.Microsecond)
		}
	}()
	t.Cleanup(func() { cancel(); s.done.Wait(); c.Close() })
	return s
}

func (s *stream) broken() bool {
	select {
	case <-s.over:
		return true
	default:
		return false
	}
}

// end stops the stream and says what it went through.
func (s *stream) end(t testing.TB) {
	t.Helper()
	s.stop()
	s.done.Wait()
	if s.err != nil {
		t.Errorf("stream %s: %v", s.name, s.err)
	}
	if s.count.Load() < 20 {
		t.Errorf("stream %s: only %d messages", s.name, s.count.Load())
	}
}

// wait lets the stream carry n more messages.
func (s *stream) wait(t testing.TB, n int64) {
	t.Helper()
	until := s.count.Load() + n
	for deadline := time.Now().Add(10 * time.Second); s.count.Load() < until; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("stream %s stands still at %d messages", s.name, s.count.Load())
		}
	}
}

func startStreams(t testing.TB, client, server *testWorkload) []*stream {
	var out []*stream
	for _, v6 := range []bool{false, true} {
		out = append(out, client.stream(t, "tcp", netip.AddrPortFrom(server.addr(v6), 80)),
			client.stream(t, "udp", netip.AddrPortFrom(server.addr(v6), 53)))
	}
	return out
}

// TestChangesLoseNothing changes sets and rules two hundred times under traffic that stays allowed.
func TestChangesLoseNothing(t *testing.T) {
	for _, guarded := range []bool{true, false} {
		t.Run(fmt.Sprintf("guarded=%v", guarded), func(t *testing.T) {
			node := newTestNode(t)
			client, server := node.workload(t), node.workload(t)
			if !guarded {
				client.unguarded()
				server.unguarded()
			}
			server.serve(t, 80, 53)
			client.apply(t, policy.Learn, policy.Sides{})
			server.apply(t, policy.Learn, policy.Sides{})
			streams := startStreams(t, client, server)
			defer func() {
				if t.Failed() {
					for _, w := range []*testWorkload{client, server} {
						t.Log(testIn(t, w.path, "nft", "list", "ruleset"))
					}
				}
			}()
			for i := range 100 {
				out, in := egress(append(churn(i), allows(server)...)...), ingress(append(churn(i+7), allows(client)...)...)
				mode := policy.Enforce
				switch i % 10 {
				case 3:
					mode = policy.Learn
				case 5:
					mode = policy.AlertMode
				case 7:
					out, in = policy.Sides{}, ingress(testEntry("10.77.0.0/24", 0, 0, 0), testEntry("fd77::/64", 0, 0, 0))
				case 8:
					out, in = egress(append(allows(server), testEntry("10.77.0.0/24", identity.TCP, 1, 99))...), policy.Sides{}
				}
				client.apply(t, mode, both(out, ingress()))
				server.apply(t, mode, both(egress(), in))
				for _, s := range streams {
					if s.broken() {
						t.Fatalf("row %d: %s: %v", i, s.name, s.err)
					}
				}
				if i%10 == 0 {
					streams[i/10%4].wait(t, 1)
				}
			}
			for _, s := range streams {
				s.end(t)
			}
		})
	}
}

// churn are entries of other peers that come and go.
func churn(i int) []policy.Entry {
	return []policy.Entry{
		testEntry(fmt.Sprintf("10.9.0.%d", i%200+1), identity.TCP, 443, 443),
		testEntry(fmt.Sprintf("10.8.%d.0/24", i%50), identity.TCP, uint16(1000+i), uint16(2000+i)),
		testEntry("10.8.0.0/16", identity.UDP, uint16(5000+i), uint16(5000+i)),
		testEntry(fmt.Sprintf("10.7.0.%d", i%100+1), 0, 0, 0),
		testEntry(fmt.Sprintf("fd99::%x:0/112", i%9), identity.TCP, 1, 1024),
	}
}

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

// talker is a connection on which only the server speaks.
type talker struct {
	conn net.Conn
	got  atomic.Int64
	err  chan error
}

// talk makes the server send a byte every two milliseconds to whoever connects to the port.
func (w *testWorkload) talk(t testing.TB, port uint16) {
	t.Helper()
	var l net.Listener
	err := Enter(w.path, func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for {
					if _, err := c.Write([]byte{1}); err != nil {
						return
					}
					time.Sleep(2 * time.Millisecond)
				}
			}()
		}
	}()
}

func (w *testWorkload) listen(t testing.TB, to netip.AddrPort) *talker {
	t.Helper()
	c, err := w.dial("tcp", to, patience(true))
	if err != nil {
		t.Fatal(err)
	}
	k := &talker{conn: c, err: make(chan error, 1)}
	go func() {
		buf := make([]byte, 100)
		for {
			n, err := c.Read(buf)
			k.got.Add(int64(n))
			if err != nil {
				k.err <- err
				return
			}
		}
	}()
	t.Cleanup(func() { c.Close() })
	k.more(t)
	return k
}

// more waits for bytes.
func (k *talker) more(t testing.TB) {
	t.Helper()
	until := k.got.Load() + 5
	for deadline := time.Now().Add(5 * time.Second); k.got.Load() < until; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: nothing more comes after %d bytes", k.conn.LocalAddr(), k.got.Load())
		}
	}
}

// talkUDP makes the client ask once over UDP, whereupon the server speaks without end.
func (w *testWorkload) talkUDP(t testing.TB, client *testWorkload, port uint16) *talker {
	return talkUDP(t, w, client, w.v4, port)
}

func (w *testWorkload) talkUDP6(t testing.TB, client *testWorkload, port uint16) *talker {
	return talkUDP(t, w, client, w.v6, port)
}

func talkUDP(t testing.TB, w, client *testWorkload, at netip.Addr, port uint16) *talker {
	t.Helper()
	var l *net.UDPConn
	err := Enter(w.path, func() (err error) {
		cfg := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		}}
		p, err := cfg.ListenPacket(context.Background(), "udp", netip.AddrPortFrom(at, port).String())
		if err == nil {
			l = p.(*net.UDPConn)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	k := &talker{}
	if k.conn, err = client.dial("udp", netip.AddrPortFrom(at, port), patience(true)); err != nil {
		t.Fatal(err)
	}
	if _, err := k.conn.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	from := k.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	t.Cleanup(func() { l.Close(); k.conn.Close() })
	go func() {
		for {
			// A refused datagram is an error of sendto, and no reason to stop.
			if _, err := l.WriteToUDPAddrPort([]byte{1}, from); errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(2 * time.Millisecond)
		}
	}()
	go func() {
		buf := make([]byte, 10)
		for {
			n, err := k.conn.Read(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			k.got.Add(int64(n))
		}
	}()
	k.more(t)
	return k
}

// TestCut takes the right of one of two clients away, at either end, while the server talks.
func TestCut(t *testing.T) {
	for _, guarded := range []bool{true, false} {
		for _, end := range []string{"server", "client", "both"} {
			t.Run(fmt.Sprintf("guarded=%v/%s", guarded, end), func(t *testing.T) { cutRow(t, guarded, end) })
		}
	}
}

func cutRow(t *testing.T, guarded bool, end string) {
	node := newTestNode(t)
	server, stays, goes := node.workload(t), node.workload(t), node.workload(t)
	for _, w := range []*testWorkload{server, stays, goes} {
		if !guarded {
			w.unguarded()
		}
		w.apply(t, policy.Learn, policy.Sides{})
	}
	server.talk(t, 80)
	to := netip.AddrPortFrom(server.v4, 80)
	kept, kept6 := stays.listen(t, to), stays.listen(t, netip.AddrPortFrom(server.v6, 80))
	cut, cut6 := goes.listen(t, to), goes.listen(t, netip.AddrPortFrom(server.v6, 80))
	dgram, keptDgram := server.talkUDP(t, goes, 53), server.talkUDP(t, stays, 53)
	dgram6, keptDgram6 := server.talkUDP6(t, goes, 53), server.talkUDP6(t, stays, 53)
	start := time.Now()
	if end != "client" {
		server.apply(t, policy.Enforce, both(egress(), ingress(allows(stays)...)))
	}
	if end != "server" {
		goes.apply(t, policy.Enforce, both(egress(), ingress()))
	}
	took := time.Since(start)
	for _, k := range []*talker{cut, cut6} {
		select {
		case err := <-k.err:
			if end == "server" && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the peer of a cut connection: %v; want a reset", err)
			}
		case <-time.After(time.Second):
			t.Errorf("%s is not cut", k.conn.LocalAddr())
		}
		had := k.got.Load()
		time.Sleep(50 * time.Millisecond)
		if now := k.got.Load(); now != had {
			t.Errorf("%d bytes after the cut", now-had)
		}
	}
	for _, k := range []*talker{dgram, dgram6} {
		had := k.got.Load()
		time.Sleep(50 * time.Millisecond)
		if now := k.got.Load(); now != had {
			t.Errorf("UDP: %d bytes after the right was taken", now-had)
		}
	}
	for _, k := range []*talker{kept, kept6, keptDgram, keptDgram6} {
		k.more(t)
	}
	t.Logf("tightened in %v", took)
}

// TestTightenKeepsAnswering switches a server to enforce whose clients are allowed by a block, so that
// what may be answered has to be known from before.
func TestTightenKeepsAnswering(t *testing.T) {
	for _, guarded := range []bool{true, false} {
		for _, sides := range []policy.Sides{egress(), both(egress(), ingress(testEntry("10.77.0.0/24", 0, 0, 0), testEntry("fd77::/64", 0, 0, 0)))} {
			t.Run(fmt.Sprintf("guarded=%v/ingress isolated=%v", guarded, sides.Ingress.Isolated), func(t *testing.T) {
				node := newTestNode(t)
				client, server := node.workload(t), node.workload(t)
				if !guarded {
					server.unguarded()
				}
				server.apply(t, policy.Learn, policy.Sides{})
				server.serve(t, 80, 53)
				server.talk(t, 8080)
				streams := startStreams(t, client, server)
				talker := client.listen(t, netip.AddrPortFrom(server.v4, 8080))
				for _, mode := range []policy.Mode{policy.Enforce, policy.AlertMode, policy.Enforce, policy.Learn, policy.Enforce} {
					server.apply(t, mode, sides)
					talker.more(t)
					for _, s := range streams {
						s.wait(t, 3)
					}
				}
				for _, s := range streams {
					s.end(t)
				}
			})
		}
	}
}
