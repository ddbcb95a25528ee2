package firewall

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"go.uber.org/goleak"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// testReaders runs Readers until the test ends.
func testReaders(t testing.TB) *Readers {
	t.Helper()
	p, err := NewReaders()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// testHeard collects what Readers hand on.
type testHeard struct {
	mu      sync.Mutex
	records []flow.Record
	counts  map[string]uint64 // by workload
}

func (h *testHeard) hear(r flow.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.counts == nil {
		h.counts = map[string]uint64{}
	}
	h.counts[r.Workload]++
	if len(h.records) < 1000 {
		h.records = append(h.records, r)
	}
}

func (h *testHeard) count(workload string) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts[workload]
}

func (h *testHeard) all() []flow.Record {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]flow.Record(nil), h.records...)
}

// until waits for a condition.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// join opens a reader of a namespace and adds it.
func (h *testHeard) join(t testing.TB, p *Readers, cfg ReaderConfig) *Reader {
	t.Helper()
	r, err := NewReader(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Add(r, h.hear, func(err error) { t.Error(err) }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Remove(r)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// Many namespaces cost one goroutine, and each hears of its own.
func TestReadersShareAGoroutine(t *testing.T) {
	requireRoot(t)
	var paths []string
	for range 12 {
		paths = append(paths, testNamespace(t))
	}
	for _, path := range paths {
		testLoad(t, path, readerRules)
	}
	p := testReaders(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	before := runtime.NumGoroutine()
	var heard testHeard
	for i, path := range paths {
		heard.join(t, p, ReaderConfig{Namespace: path, Workload: fmt.Sprint(i)})
	}
	for _, path := range paths {
		for range 3 {
			testSend(t, path, "127.0.0.1:53", 1)
		}
	}
	for i := range paths {
		until(t, "records of "+paths[i], func() bool { return heard.count(fmt.Sprint(i)) == 3 })
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines for %d logs", n-before, len(paths))
	}
}

// One namespace floods with records; the others' come through, none of them is lost, and the flood
// has its share and no more. What it lost is counted to the last message.
func TestReadersAreFair(t *testing.T) {
	flooder, honest := testNamespace(t), testNamespace(t)
	for _, path := range []string{flooder, honest} {
		testLoad(t, path, readerRules)
	}
	p := testReaders(t)
	var heard testHeard
	flood := heard.join(t, p, ReaderConfig{Namespace: flooder, Workload: "flooder"})
	quiet := heard.join(t, p, ReaderConfig{Namespace: honest, Workload: "honest"})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for sent := 0; ; sent += 1000 {
			select {
			case <-stop:
				return
			default:
				testSend(t, flooder, "127.0.0.1:53", 1000)
			}
		}
	}()
	until(t, "the flood has had its share", func() bool { return flood.Stats().Held > 0 })
	start := time.Now()
	for i := range uint64(50) {
		testSend(t, honest, "127.0.0.1:53", 1)
		until(t, "an honest record under flood", func() bool { return heard.count("honest") > i })
	}
	took := time.Since(start)
	until(t, "the flood loses", func() bool { return flood.Stats().Lost > 0 })
	close(stop)
	wg.Wait()
	if s := quiet.Stats(); s.Lost != 0 || s.Overruns != 0 || s.Records != 50 {
		t.Errorf("honest log: %+v", s)
	}
	var s ReaderStats
	logged := uint64(0)
	until(t, "every message of the flood is accounted for", func() bool {
		testConnect(t, flooder, "127.0.0.1:80") // the next sequence number tells of the tail
		logged = testCounters(t, flooder)
		for range 50 {
			if s = flood.Stats(); s.Records+s.Lost >= logged {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		return s.Records+s.Lost == logged
	})
	t.Logf("50 honest records, one after the other, took %v; the flood: %d logged, %+v", took, logged, s)
}

// What waits in the kernel when a log is let go is told first: a short job's last connections count.
func TestReadersTellTheRest(t *testing.T) {
	path := testNamespace(t)
	testLoad(t, path, readerRules)
	p := testReaders(t)
	var heard testHeard
	r := heard.join(t, p, ReaderConfig{Namespace: path, Workload: "job"})
	for range 7 {
		testSend(t, path, "127.0.0.1:53", 1)
	}
	p.Remove(r) // within the time that the kernel gathers
	if n := heard.count("job"); n != 7 {
		t.Errorf("%d records of 7", n)
	}
	testSend(t, path, "127.0.0.1:53", 7)
	p.Remove(r)
	if n := heard.count("job"); n != 7 {
		t.Errorf("%d records after it was let go", n)
	}
}

// confirmWorld is a namespace with our real rules, and a peer to talk to.
func confirmWorld(t *testing.T) (path string, peer netip.Addr) {
	t.Helper()
	node := testNamespace(t)
	path = testNamespace(t)
	n, w := filepath.Base(node), filepath.Base(path)
	quickIPv6(t, node)
	quickIPv6(t, path)
	testRun(t, "ip", "-n", n, "link", "add", "vhost", "up", "type", "veth", "peer", "name", "eth0", "netns", w)
	testRun(t, "ip", "-n", n, "addr", "add", "10.1.0.9/24", "dev", "vhost")
	testRun(t, "ip", "-n", n, "addr", "add", "fd00::9/64", "dev", "vhost", "nodad")
	testRun(t, "ip", "-n", w, "addr", "add", "10.1.0.5/24", "dev", "eth0")
	testRun(t, "ip", "-n", w, "addr", "add", "fd00::5/64", "dev", "eth0", "nodad")
	testRun(t, "ip", "-n", w, "link", "set", "eth0", "up")
	ns, err := Open(Config{NetNS: path, Node: node})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	if _, err := ns.Apply(Compile(Spec{Mode: policy.Learn})); err != nil {
		t.Fatal(err)
	}
	return path, netip.MustParseAddr("10.1.0.9")
}

// Our rules' records are confirmed, whatever the protocol; those of a rule that somebody else wrote,
// with our prefix and to our group, are not handed on.
func TestReadersRefuseForgedRules(t *testing.T) {
	path, _ := confirmWorld(t)
	p := testReaders(t)
	var heard testHeard
	r := heard.join(t, p, ReaderConfig{Namespace: path, Workload: "cart", Confirm: true})
	testConnect(t, path, "10.1.0.9:80")
	testConnect(t, path, "[fd00::9]:81")
	testSend(t, path, "10.1.0.9:53", 1)
	testSend(t, path, "[fd00::9]:53", 1)
	testRun(t, "ip", "netns", "exec", filepath.Base(path), "busybox", "ping", "-c1", "-W1", "10.1.0.9")
	testRun(t, "ip", "netns", "exec", filepath.Base(path), "busybox", "ping", "-c1", "-W1", "fd00::9")
	want := []string{"TCP/80", "TCP/81", "UDP/53", "UDP/53", "ICMP/8", "ICMPv6/128"}
	until(t, "honest records", func() bool {
		text := recordText(heard.all())
		for _, w := range want {
			if !strings.Contains(text, w) {
				return false
			}
		}
		return true
	})
	if s := r.Stats(); s.Forged != 0 || s.Doubtful != 0 {
		t.Errorf("honest records: %+v\n%s", s, recordText(heard.all()))
	}
	honest := len(heard.all())

	// The packet is logged as if we had let it out, and goes nowhere; and one as if it had come in.
	testLoad(t, path, `
table ip evil {
	chain output {
		type filter hook output priority -300; policy accept;
		ip daddr 10.1.0.77 log prefix "bh out allow" group 4711 snaplen 128
		ip daddr 10.1.0.77 log prefix "bh in allow" group 4711 snaplen 128
		ip daddr 10.1.0.77 log prefix "bh out deny" group 4711 snaplen 128 drop
	}
}`)
	for range 4 { // to an address of our own network: nobody is there, the packet is dropped
		testSend(t, path, "10.1.0.77:53", 1)
	}
	until(t, "forged records are counted", func() bool { return r.Stats().Forged == 12 })
	if got := heard.all(); len(got) != honest {
		t.Errorf("forged records were handed on:\n%s", recordText(got[honest:]))
	}
}

func recordText(records []flow.Record) string {
	var b strings.Builder
	for _, r := range records {
		fmt.Fprintf(&b, "%s %s > %s %s/%d\n", r.Direction, r.Client, r.Server, r.Protocol, r.Port)
	}
	return b.String()
}

// The protocols that have no ports are confirmed by what stands where ports would.
func TestConfirmKey(t *testing.T) {
	p := newDecodeParser()
	for _, c := range []struct {
		name  string
		etype uint16
		data  []byte
		want  logKey
	}{
		{"TCP", 0x0800, testPacket(t, testIPv4(6), testSYN()), logKey{decode4b, policy.Egress, false, 6, 80}},
		{"TCP in IPv6", 0x86dd, testPacket(t, testIPv6(6), testSYN()), logKey{decode6b, policy.Egress, false, 6, 80}},
		{"GRE", 0x0800, testPacket(t, testIPv4(47), gopacket.Payload{1, 2, 3, 4}), logKey{decode4b, policy.Egress, false, 47, 0x0304}},
		{"GRE in IPv6", 0x86dd, testPacket(t, testIPv6(47), gopacket.Payload{1, 2, 3, 4}), logKey{decode6b, policy.Egress, false, 47, 0x0304}},
	} {
		var r flow.Record
		decodeRecord(p, &nflogMessage{etherType: c.etype, payload: c.data, prefix: []byte(PrefixOutAllow)}, &r)
		if p.key != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, p.key, c.want)
		}
	}
	if set := (logKey{peer: decode6b, dir: policy.Ingress, denied: true, protocol: uint8(identity.UDP)}).set(); set != "denied_in6" {
		t.Error(set)
	}
}
