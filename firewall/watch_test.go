package firewall

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// testEvents is a Watch that runs, with what it told.
type testEvents struct {
	*Watch
	of   *Watcher
	got  chan Event
	run  func()
	stop func()
}

func testWatch(t testing.TB, cfg WatchConfig) *testEvents {
	t.Helper()
	ev := testWatchLater(t, cfg)
	ev.run()
	return ev
}

// testWatchLater is a Watch that nobody reads before run.
func testWatchLater(t testing.TB, cfg WatchConfig) *testEvents {
	t.Helper()
	of, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	ev := &testEvents{of: of, got: make(chan Event, 4096)}
	cfg.Tell = func(e Event) { ev.got <- e }
	if ev.Watch, err = of.Watch(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	ev.run = sync.OnceFunc(func() { go func() { done <- of.Run(ctx) }() })
	ev.stop = sync.OnceFunc(func() {
		ev.run()
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(5 * time.Second):
			t.Error("Run goes on after its context")
		}
		for _, err := range []error{ev.Close(), of.Close()} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(ev.stop)
	return ev
}

// next waits for an event.
func (ev *testEvents) next(t testing.TB) Event {
	t.Helper()
	select {
	case e := <-ev.got:
		return e
	case <-time.After(5 * time.Second):
		t.Fatal("no event in 5 s")
		return Event{}
	}
}

// quiet sees that nothing was told, by an event that is sure to come.
func (ev *testEvents) quiet(t testing.TB, path string) {
	t.Helper()
	testIn(t, path, "nft", "add", "table", "ip", "marker")
	for {
		e := ev.next(t)
		if e.Table == "ip marker" && e.What == "table ip marker was added" {
			break
		}
		t.Errorf("unexpected event: %+v", e)
	}
	testIn(t, path, "nft", "delete", "table", "ip", "marker")
	if e := ev.next(t); e.What != "table ip marker was deleted" {
		t.Errorf("unexpected event: %+v", e)
	}
}

func TestWatchTellsForeignChanges(t *testing.T) {
	path := testNamespace(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ev := testWatch(t, WatchConfig{Namespace: path})
	for _, c := range []struct{ name, rules, what, table, chain string }{
		{"an accept chain before ours",
			"table ip evil { chain pre { type filter hook output priority -300; policy accept; accept; tcp dport 1 accept; }; }",
			"table ip evil was added, chain ip evil pre (hook output, priority -300) was added, 2 rules of chain ip evil pre were added",
			"ip evil", "pre"},
		{"a rule", "add rule ip evil pre drop",
			"a rule of chain ip evil pre was added", "ip evil", "pre"},
		{"a set with elements", "table netdev x { set s { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2, 10.0.0.3 }; }; }",
			"table netdev x was added, set netdev x s was added, 3 elements of set netdev x s were added", "netdev x", ""},
		{"NAT after ours", "table ip nat { chain p { type nat hook postrouting priority 100; oifname lo masquerade; }; }",
			"table ip nat was added, chain ip nat p (hook postrouting, priority 100) was added, a rule of chain ip nat p was added", "ip nat", "p"},
		{"many things at once", "table ip m { chain a { }; chain b { }; chain c { }; chain d { }; chain e { }; chain f { }; chain g { }; }",
			"table ip m was added, chain ip m a was added, chain ip m b was added, chain ip m c was added, chain ip m d was added, chain ip m e was added, and 2 more",
			"ip m", "a"},
		{"its end", "delete table ip m",
			"chain ip m a was deleted, chain ip m b was deleted, chain ip m c was deleted, chain ip m d was deleted, chain ip m e was deleted, chain ip m f was deleted, and 2 more",
			"ip m", "a"},
	} {
		testLoad(t, path, c.rules)
		e := ev.next(t)
		if e.Kind != EventNftables || e.What != c.what || e.Table != c.table || e.Chain != c.chain ||
			e.Process != "nft" || e.PID == 0 || e.Flushed || time.Since(e.Time) > 5*time.Second {
			t.Errorf("%s:\n got %+v\nwant %s", c.name, e, c.what)
		}
	}
	ev.stop() // before goleak looks
}

// Each cut of the tripwire is told with who did it, and it is laid again.
func TestWatchTripwire(t *testing.T) {
	path := testNamespace(t)
	ns, err := Open(Config{NetNS: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	if _, err := ns.Apply(Compile(Spec{Mode: policy.Enforce})); err != nil {
		t.Fatal(err)
	}
	ev := testWatch(t, WatchConfig{Namespace: path, Own: ns})
	list := func() string { return testIn(t, path, "nft", "list", "tables") }
	if !strings.Contains(testIn(t, path, "nft", "list", "ruleset"), tripwireComment) {
		t.Error("the tripwire says nothing of its purpose")
	}
	for _, c := range []struct{ command, what string }{
		{"flush ruleset", "the ruleset was flushed, or table inet bulkhead-tripwire deleted"},
		{"delete table inet bulkhead-tripwire", "the ruleset was flushed, or table inet bulkhead-tripwire deleted"},
		{"add table ip evil; flush ruleset", "the ruleset was flushed, or table inet bulkhead-tripwire deleted, table ip evil was added, table ip evil was deleted"},
		{"delete table inet bulkhead-tripwire; add table inet bulkhead-tripwire",
			"the ruleset was flushed, or table inet bulkhead-tripwire deleted, table inet bulkhead-tripwire was added"},
	} {
		testLoad(t, path, strings.ReplaceAll(c.command, "; ", "\n"))
		e := ev.next(t)
		if !e.Flushed || e.Process != "nft" || e.PID == 0 || e.What != c.what && !strings.HasPrefix(e.What, "the ruleset was flushed") {
			t.Errorf("%s: %+v", c.command, e)
		}
		if e.What != c.what {
			t.Logf("%s: %s", c.command, e.What)
		}
		deadline := time.Now().Add(3 * time.Second)
		for !strings.Contains(list(), TripwireTable) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the tripwire is not laid again:\n%s", c.command, list())
			}
			time.Sleep(10 * time.Millisecond)
		}
		if !strings.Contains(list(), "inet bulkhead\n") {
			t.Errorf("%s: our table is gone", c.command)
		}
	}
	ev.quiet(t, path)

	if err := ev.Remove(); err != nil {
		t.Error(err)
	}
	if err := ev.Remove(); err != nil {
		t.Errorf("removed twice: %v", err)
	}
	if strings.Contains(list(), TripwireTable) {
		t.Error("the tripwire is still there")
	}
	ev.quiet(t, path)
}

// What we do ourselves is never told, through whichever socket, and whoever does it at the same time.
func TestWatchIgnoresOwnChanges(t *testing.T) {
	path := testNamespace(t)
	ns, err := Open(Config{NetNS: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	ev := testWatch(t, WatchConfig{Namespace: path, Own: ns})
	for _, m := range []policy.Mode{policy.Learn, policy.AlertMode, policy.Enforce, policy.Learn} {
		if _, err := ns.Apply(Compile(Spec{Mode: m})); err != nil {
			t.Fatal(err)
		}
	}
	other, err := openTripwire(ns.file, path) // a socket that the Watch does not know
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	if err := other.remove(); err != nil {
		t.Error(err)
	}
	if err := other.lay(); err != nil {
		t.Error(err)
	}
	ev.quiet(t, path)
}

// A flush while no daemon was there is told by the next one.
func TestWatchTellsWhatItMissed(t *testing.T) {
	path := testNamespace(t)
	testWatch(t, WatchConfig{Namespace: path}).stop()
	ev := testWatch(t, WatchConfig{Namespace: path, Adopted: true})
	ev.quiet(t, path)
	ev.stop()
	testIn(t, path, "nft", "flush", "ruleset")
	ev = testWatch(t, WatchConfig{Namespace: path, Adopted: true})
	if e := ev.next(t); !e.Flushed || !strings.Contains(e.What, "while nobody watched") {
		t.Errorf("%+v", e)
	}
	ev.quiet(t, path)
}

func TestWatchLinksAndAddresses(t *testing.T) {
	node, path := testNamespace(t), testNamespace(t)
	pod, ip := filepath.Base(path), func(argv ...string) {
		t.Helper()
		testRun(t, append([]string{"ip", "-n", filepath.Base(path)}, argv...)...)
	}
	testRun(t, "ip", "-n", filepath.Base(node), "link", "add", "vhost", "up", "type", "veth", "peer", "name", "eth0", "netns", pod)
	ip("addr", "add", "10.1.0.5/24", "dev", "eth0")
	// A link-local address that waits for duplicate detection comes a second later, when the MAC that
	// it was made from has changed already.
	testIn(t, path, "sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad")
	ev := testWatch(t, WatchConfig{Namespace: path})
	// The link-local address of its own MAC, and addresses that were there, are no news.
	ip("link", "set", "eth0", "up")
	ip("link", "set", "eth0", "mtu", "1400")
	ev.quiet(t, path)
	for _, c := range []struct {
		command string
		kind    EventKind
		want    []string
	}{
		{"addr add 10.1.0.9/24 dev eth0", EventAddress, []string{"address 10.1.0.9/24 was added to interface eth0 (veth)"}},
		{"addr add fd00::9/64 dev eth0", EventAddress, []string{"address fd00::9/64 was added to interface eth0 (veth)"}},
		{"addr add 10.3.3.3/32 dev lo", EventAddress, []string{"address 10.3.3.3/32 was added to interface lo"}},
		{"link set eth0 address 02:00:00:00:00:99", EventLink, []string{"the MAC address of interface eth0 was changed from "}},
		{"link add mv0 link eth0 type macvlan", EventLink, []string{"interface mv0 (macvlan) was added"}},
		{"link set mv0 name mv1", EventLink, []string{"interface mv0 was renamed to mv1"}},
		{"link add va type veth peer name vb", EventLink, []string{"interface vb (veth) was added", "interface va (veth) was added"}},
		{"link add br9 type bridge", EventLink, []string{"interface br9 (bridge) was added"}},
		{"link set va master br9", EventLink, []string{"interface va was made a port of br9", "the MAC address of interface br9 was changed from "}},
		{"link del mv1", EventLink, []string{"interface mv1 (macvlan) is gone"}},
		{"link set eth0 netns " + filepath.Base(node), EventLink, []string{"interface eth0 (veth) is gone"}},
	} {
		ip(strings.Fields(c.command)...)
		for _, want := range c.want {
			if e := ev.next(t); e.Kind != c.kind || !strings.HasPrefix(e.What, want) {
				t.Errorf("%s: got %+v, want %s", c.command, e, want)
			}
		}
	}
	ev.quiet(t, path)
}

// Routes, rules of routing, traffic control and sysctls of which the kernel tells.
func TestWatchRoutesTrafficSysctls(t *testing.T) {
	node, path := testNamespace(t), testNamespace(t)
	pod := filepath.Base(path)
	testRun(t, "ip", "-n", filepath.Base(node), "link", "add", "vhost", "up", "type", "veth", "peer", "name", "eth0", "netns", pod)
	for _, c := range []string{"addr add 10.1.0.5/24 dev eth0", "addr add fd00::5/64 dev eth0 nodad", "link set eth0 up", "link set lo up",
		"route add default via 10.1.0.1"} {
		testRun(t, append([]string{"ip", "-n", pod}, strings.Fields(c)...)...)
	}
	ev := testWatch(t, WatchConfig{Namespace: path})
	ev.quiet(t, path)
	for _, c := range []struct {
		command string
		kind    EventKind
		want    []string
	}{
		{"ip route replace default via 10.1.0.9", EventRoute, []string{"a default route via 10.1.0.9 on interface eth0 was added"}},
		{"ip route add 10.9.0.0/16 via 10.1.0.9", EventRoute, []string{"a route to 10.9.0.0/16 via 10.1.0.9 on interface eth0 was added"}},
		{"ip -6 route add default via fd00::1 table 7", EventRoute, []string{"a default route via fd00::1 on interface eth0 (table 7) was added"}},
		{"ip route add local 10.7.0.0/16 dev lo", EventRoute, []string{"a route to 10.7.0.0/16 on interface lo was added"}},
		{"ip rule add from 1.2.3.4 table 7", EventRoute, []string{"a rule of routing was added (priority 32765, table 7)"}},
		{"tc qdisc add dev eth0 clsact", EventTraffic, []string{"the qdisc clsact was added to interface eth0"}},
		{"tc filter add dev eth0 egress bpf bytecode 1,6-0-0-4294967295", EventTraffic, []string{"a filter of traffic control (bpf) was added to interface eth0"}},
		{"sysctl -w net.ipv4.conf.eth0.proxy_arp=1", EventSysctl, []string{"sysctl net.ipv4.conf.eth0.proxy_arp was changed from 0 to 1"}},
		{"sysctl -w net.ipv4.conf.eth0.forwarding=1", EventSysctl, []string{"sysctl net.ipv4.conf.eth0.forwarding was changed from 0 to 1"}},
		{"sysctl -w net.ipv6.conf.eth0.proxy_ndp=1", EventSysctl, []string{"sysctl net.ipv6.conf.eth0.proxy_ndp was changed from 0 to 1"}},
	} {
		argv := strings.Fields(c.command)
		if strings.Contains(c.command, "bytecode") {
			argv[len(argv)-1] = strings.ReplaceAll(argv[len(argv)-1], "-", " ") // one argument
		}
		testIn(t, path, argv...)
		for _, want := range c.want {
			if e := ev.next(t); e.Kind != c.kind || !strings.HasPrefix(e.What, want) {
				t.Errorf("%s: got %+v, want %s", c.command, e, want)
			}
		}
	}
	ev.quiet(t, path)
	// Of the others the kernel tells nobody: a look finds them.
	for command, want := range map[string]string{
		"net.ipv4.conf.eth0.arp_announce=2":     "sysctl net.ipv4.conf.eth0.arp_announce was changed from 0 to 2",
		"net.ipv4.conf.all.arp_ignore=3":        "sysctl net.ipv4.conf.all.arp_ignore was changed from 0 to 3",
		"net.ipv6.conf.eth0.accept_ra=2":        "sysctl net.ipv6.conf.eth0.accept_ra was changed from 1 to 2",
		"net.ipv4.conf.eth0.route_localnet=1":   "sysctl net.ipv4.conf.eth0.route_localnet was changed from 0 to 1",
		"net.ipv6.conf.eth0.seg6_enabled=1":     "sysctl net.ipv6.conf.eth0.seg6_enabled was changed from 0 to 1",
		"net.ipv4.conf.eth0.accept_redirects=0": "sysctl net.ipv4.conf.eth0.accept_redirects was changed from 1 to 0",
		"net.ipv4.ip_nonlocal_bind=1":           "sysctl net.ipv4.ip_nonlocal_bind was changed from 0 to 1",
	} {
		testIn(t, path, "sysctl", "-w", command)
		for range 2 { // and told once
			if err := ev.Look(); err != nil {
				t.Fatal(err)
			}
		}
		if e := ev.next(t); e.Kind != EventSysctl || e.What != want {
			t.Errorf("%s: got %+v, want %s", command, e, want)
		}
	}
	ev.quiet(t, path)
}

// BenchmarkWatchLook is what a look costs, of which there is one each few seconds for each workload.
func BenchmarkWatchLook(b *testing.B) {
	path := testNamespace(b)
	ev := testWatch(b, WatchConfig{Namespace: path})
	b.ReportAllocs()
	for b.Loop() {
		if err := ev.Look(); err != nil {
			b.Fatal(err)
		}
	}
}

// Whoever causes more than a share is made to wait, and others go on.
func TestWatchIsFair(t *testing.T) {
	loud, calm := testNamespace(t), testNamespace(t)
	of, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer of.Close()
	var reads atomic.Int64
	got := make(chan Event, 64)
	a, err := of.Watch(WatchConfig{Namespace: loud, Tell: func(Event) { reads.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := of.Watch(WatchConfig{Namespace: calm, Tell: func(e Event) { got <- e }})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- of.Run(ctx) }()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		var lines strings.Builder
		for range 500 {
			lines.WriteString("link set lo mtu 1400\nlink set lo mtu 1500\n")
		}
		for {
			select {
			case <-stop:
				return
			default:
			}
			c := exec.Command("ip", "-n", filepath.Base(loud), "-batch", "-")
			c.Stdin = strings.NewReader(lines.String())
			_ = c.Run()
		}
	}()
	for range 5 {
		begin := time.Now()
		testIn(t, calm, "nft", "add", "table", "ip", "x")
		select {
		case <-got:
			t.Logf("told after %v", time.Since(begin))
		case <-time.After(10 * time.Second):
			t.Fatal("the calm namespace is not heard")
		}
		testIn(t, calm, "nft", "delete", "table", "ip", "x")
		<-got
	}
	close(stop)
	<-stopped
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Too many changes at once: that some were missed is told, and the Watch goes on.
func TestWatchTellsThatItIsBlind(t *testing.T) {
	path := testNamespace(t)
	ev := testWatchLater(t, WatchConfig{Namespace: path})
	testReadBuffer(t, ev.nft)
	var b strings.Builder
	b.WriteString("add table ip t\n")
	for i := range 500 {
		fmt.Fprintf(&b, "add chain ip t c%d\n", i)
	}
	testLoad(t, path, b.String()) // nobody reads yet
	ev.run()
	for ev.next(t).Kind != EventBlind {
	}
	testIn(t, path, "nft", "delete", "chain", "ip", "t", "c7")
	for e := ev.next(t); e.What != "chain ip t c7 was deleted"; e = ev.next(t) {
		if e.Kind != EventBlind {
			t.Logf("%+v", e)
		}
	}
}

// testReadBuffer makes the kernel's buffer of a socket small.
func testReadBuffer(t testing.TB, s *polled) {
	t.Helper()
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4096); err != nil {
		t.Fatal(err)
	}
}

// Our own changes, however many, do not even fill the buffer: no one of theirs is lost for them.
func TestWatchIsNotBlindedByUs(t *testing.T) {
	path := testNamespace(t)
	ns, err := Open(Config{NetNS: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	ev := testWatchLater(t, WatchConfig{Namespace: path, Own: ns})
	testReadBuffer(t, ev.nft)
	spec := Spec{Mode: policy.Enforce}
	spec.Sides.Egress.Isolated = true
	for i := range 10000 {
		a := netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})
		spec.Sides.Egress.Entries = append(spec.Sides.Egress.Entries,
			policy.Entry{Peer: netip.PrefixFrom(a, 32), Protocol: identity.TCP, Port: 80, EndPort: 80})
	}
	start := time.Now()
	if _, err := ns.Apply(Compile(spec)); err != nil {
		t.Fatal(err)
	}
	t.Logf("10000 elements with a Watch: %v", time.Since(start))
	ev.run()
	ev.quiet(t, path)
}

// A process in the container can send to our group, but the kernel tells whose message it is.
func TestWatchRefusesForgedEvents(t *testing.T) {
	path := testNamespace(t)
	ev := testWatch(t, WatchConfig{Namespace: path})
	table := testAttribute([]byte{2, 0, 0, 0}, 1, []byte("forged\x00"))
	gen := testAttribute([]byte{0, 0, 0, 0}, nftaGenProcName, []byte("innocent\x00"))
	for kind, body := range map[uint16][]byte{unix.NFT_MSG_NEWTABLE: table, unix.NFT_MSG_NEWGEN: gen} {
		err := testForge(path, unix.NETLINK_NETFILTER, 0, 1<<(watchGroupNftables-1), unix.NFNL_SUBSYS_NFTABLES<<8|kind, body)
		if err != nil {
			t.Logf("the kernel refuses to send it: %v", err)
		}
	}
	ev.quiet(t, path)
}

// Two processes at once: each transaction is told with its own doer.
func TestWatchKeepsDoersApart(t *testing.T) {
	path := testNamespace(t)
	ns, err := Open(Config{NetNS: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	ev := testWatch(t, WatchConfig{Namespace: path, Own: ns})
	done := make(chan error, 1)
	go func() {
		for i := range 30 {
			if _, err := ns.Apply(Compile(Spec{Mode: policy.Mode(i % 3)})); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for i := range 10 {
		name := fmt.Sprintf("t%d", i)
		if out, err := exec.Command("ip", "netns", "exec", filepath.Base(path), "nft", "add", "table", "ip", name).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if e := ev.next(t); e.What != "table ip "+name+" was added" || e.Process != "nft" {
			t.Errorf("%+v", e)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	ev.quiet(t, path)
}

func FuzzWatch(f *testing.F) {
	f.Add(uint16(unix.NFT_MSG_NEWTABLE), testAttribute([]byte{2, 0, 0, 0}, 1, []byte("evil\x00")))
	hook := testAttribute(testAttribute(nil, 1, []byte{0, 0, 0, 3}), 2, []byte{0xff, 0xff, 0xfe, 0xd4})
	f.Add(uint16(unix.NFT_MSG_NEWCHAIN), testAttribute(testAttribute(testAttribute([]byte{2, 0, 0, 0}, 1, []byte("evil\x00")), 3, []byte("c\x00")), 4, hook))
	f.Add(uint16(unix.RTM_NEWLINK), testAttribute(make([]byte, 16), unix.IFLA_IFNAME, []byte("eth\x1b0\x00")))
	f.Add(uint16(unix.RTM_NEWADDR), testAttribute(make([]byte, 8), unix.IFA_ADDRESS, []byte{10, 0, 0, 1}))
	f.Fuzz(func(t *testing.T, kind uint16, body []byte) {
		p := newWatchPicture()
		for range 2 {
			for _, e := range p.note(kind, body) {
				watchPrintable(t, e)
			}
		}
		if len(body) < nfgenmsgSize {
			return
		}
		c := &watchChange{}
		c.note(kernelMessage{kind: kind, body: body})
		c.note(kernelMessage{kind: kind, body: body})
		e, _ := c.end(kernelMessage{body: body}, func(uint32, int) bool { return false }, time.Now())
		watchPrintable(t, e)
	})
}

func watchPrintable(t *testing.T, e Event) {
	t.Helper()
	for _, s := range []string{e.What, e.Table, e.Chain, e.Process} {
		if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) || len(s) > 2000 {
			t.Errorf("not printable: %q", s)
		}
	}
	if e.What == "" {
		t.Errorf("says nothing: %+v", e)
	}
}
