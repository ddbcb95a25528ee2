package firewall

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// readerRules log like the real ones, without sets, so that every birth is told.
const readerRules = `
table inet bulkhead {
	chain output {
		type filter hook output priority filter; policy accept;
		tcp flags & (syn | ack) == syn counter log prefix "bh out allow" group 4711 snaplen 128
		udp dport 53 counter log prefix "bh out allow" group 4711 snaplen 128
		icmp type echo-request log prefix "bh out deny" group 4711 snaplen 128 drop
		icmpv6 type echo-request log prefix "bh out alert" group 4711 snaplen 128
		udp dport 9 counter log prefix "SPAM: " group 4711
	}
	chain input {
		type filter hook input priority filter; policy accept;
		tcp flags & (syn | ack) == syn log prefix "bh in allow" group 4711 snaplen 128
	}
}`

// testRecords runs a reader and gives its records on a channel; it ends with the test.
func testRecords(t testing.TB, r *Reader) <-chan testRecord {
	t.Helper()
	records := make(chan testRecord, 65536)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		if err := r.RunGuards(ctx, func(rec flow.Record, ifindex int) { records <- testRecord{rec, ifindex} }); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return records
}

type testRecord struct {
	flow.Record
	ifindex int
}

// testNext waits for the next record.
func testNext(t testing.TB, records <-chan testRecord) testRecord {
	t.Helper()
	select {
	case r := <-records:
		return r
	case <-time.After(5 * time.Second):
		t.Fatal("no record in 5 s")
		return testRecord{}
	}
}

// testSend sends one datagram from inside a namespace, or tries to.
func testSend(t testing.TB, path, to string, n int) {
	t.Helper()
	err := Enter(path, func() error {
		c, err := net.Dial("udp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		for range n {
			_, _ = c.Write([]byte("hello"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// testConnect connects from inside a namespace to a port where nobody listens.
func testConnect(t testing.TB, path, to string) {
	t.Helper()
	if err := Enter(path, func() error {
		c, err := net.DialTimeout("tcp", to, time.Second)
		if err == nil {
			c.Close()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestReaderTellsEveryProtocol(t *testing.T) {
	path := testNamespace(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	testLoad(t, path, readerRules)
	r, err := NewReader(ReaderConfig{Namespace: path, Workload: "cart"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	got, done := make(chan flow.Record, 100), make(chan error, 1)
	go func() { done <- r.Run(ctx, func(rec flow.Record) { got <- rec }) }()

	v4, v6 := netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()
	want := func(e flow.Event, d policy.Direction, v policy.Verdict, a netip.Addr, p identity.Protocol, port uint16) flow.Record {
		return flow.Record{Workload: "cart", Event: e, Direction: d, Verdict: v, Client: a, Server: a, Protocol: p, Port: port, Count: 1}
	}
	for _, c := range []struct {
		send func()
		want []flow.Record
	}{
		{func() { testConnect(t, path, "127.0.0.1:80") }, []flow.Record{
			want(flow.Birth, policy.Egress, policy.Allow, v4, identity.TCP, 80),
			want(flow.Birth, policy.Ingress, policy.Allow, v4, identity.TCP, 80)}},
		{func() { testConnect(t, path, "[::1]:443") }, []flow.Record{
			want(flow.Birth, policy.Egress, policy.Allow, v6, identity.TCP, 443),
			want(flow.Birth, policy.Ingress, policy.Allow, v6, identity.TCP, 443)}},
		{func() { testSend(t, path, "127.0.0.1:53", 1) }, []flow.Record{
			want(flow.Birth, policy.Egress, policy.Allow, v4, identity.UDP, 53)}},
		{func() { testSend(t, path, "[::1]:53", 1) }, []flow.Record{
			want(flow.Birth, policy.Egress, policy.Allow, v6, identity.UDP, 53)}},
		{func() { testEcho(t, path, v4) }, []flow.Record{
			want(flow.Denied, policy.Egress, policy.Deny, v4, identity.ICMP, 8)}},
		{func() { testEcho(t, path, v6) }, []flow.Record{
			want(flow.Birth, policy.Egress, policy.Alert, v6, identity.ICMPv6, 128)}},
	} {
		c.send()
		for _, want := range c.want {
			select {
			case rec := <-got:
				if rec.ClientPort == 0 || rec.Bytes < 28 || time.Since(rec.Time) > 5*time.Second {
					t.Errorf("client port %d, %d bytes, at %v", rec.ClientPort, rec.Bytes, rec.Time)
				}
				rec.ClientPort, rec.Bytes, rec.Time = 0, 0, time.Time{}
				if rec != want {
					t.Errorf("got  %+v\nwant %+v", rec, want)
				}
			case <-time.After(5 * time.Second):
				t.Fatalf("no record; want %+v", want)
			}
		}
	}
	testSend(t, path, "127.0.0.1:9", 1)
	testConnect(t, path, "127.0.0.1:81")
	<-got
	if s := r.Stats(); s.Foreign != 1 || s.Lost != 0 || s.Malformed != 0 || s.Overruns != 0 || s.Records < 9 {
		t.Errorf("stats %+v", s)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("ended with %v", err)
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Error(err)
	}
}

// testEcho sends one echo request from inside a namespace.
func testEcho(t testing.TB, path string, to netip.Addr) {
	t.Helper()
	err := Enter(path, func() error {
		family, proto, kind := unix.AF_INET, unix.IPPROTO_ICMP, byte(8)
		var sa unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
		if to.Is6() {
			family, proto, kind = unix.AF_INET6, unix.IPPROTO_ICMPV6, 128
			sa = &unix.SockaddrInet6{Addr: to.As16()}
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW, proto)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		_ = unix.Sendto(fd, []byte{kind, 0, 0, 0, 0, 1, 0, 1}, 0, sa) // EPERM where it is dropped
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestReaderIsPrompt(t *testing.T) {
	path := testNamespace(t)
	testLoad(t, path, readerRules)
	r, err := NewReader(ReaderConfig{Namespace: path})
	if err != nil {
		t.Fatal(err)
	}
	records := testRecords(t, r)
	best := time.Hour
	for range 5 {
		start := time.Now()
		testSend(t, path, "127.0.0.1:53", 1)
		testNext(t, records)
		best = min(best, time.Since(start))
	}
	if best > 150*time.Millisecond {
		t.Errorf("the fastest of five records took %v", best)
	}
	t.Logf("fastest of five: %v", best)
}

// What was sent is what came plus what was lost, to the packet.
func TestReaderCountsLossExactly(t *testing.T) {
	path := testNamespace(t)
	testLoad(t, path, readerRules)
	r, err := NewReader(ReaderConfig{Namespace: path, Buffer: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	testSend(t, path, "127.0.0.1:53", 20000) // nobody reads yet
	testRecords(t, r)
	var logged uint64
	var s ReaderStats
	for range 50 {
		testConnect(t, path, "127.0.0.1:80") // the next sequence number tells of the tail
		logged = testCounters(t, path)
		for range 20 {
			if s = r.Stats(); s.Records+s.Lost >= logged {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if s.Records+s.Lost == logged {
			break
		}
	}
	if s.Records+s.Lost != logged || s.Lost == 0 || s.Overruns == 0 {
		t.Errorf("logged %d; %+v", logged, s)
	}
	t.Logf("logged %d; %+v", logged, s)
}

// testCounters sums what the rules of the output chain counted, TCP twice: it is logged on its way
// in as well.
func testCounters(t testing.TB, path string) uint64 {
	t.Helper()
	var sum uint64
	for i, m := range regexp.MustCompile(`counter packets (\d+)`).FindAllStringSubmatch(testIn(t, path, "nft", "list", "ruleset"), -1) {
		n, _ := strconv.ParseUint(m[1], 10, 64)
		if i == 0 {
			n *= 2
		}
		sum += n
	}
	return sum
}

func TestReaderHoldsItsGroupAlone(t *testing.T) {
	path := testNamespace(t)
	r, err := NewReader(ReaderConfig{Namespace: path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewReader(ReaderConfig{Namespace: path}); !errors.Is(err, unix.EPERM) {
		t.Errorf("second reader: %v", err)
	}
	other, err := NewReader(ReaderConfig{Namespace: testNamespace(t)})
	if err != nil {
		t.Errorf("another namespace: %v", err)
	}
	other.Close()
	r.Close()
	if r, err = NewReader(ReaderConfig{Namespace: path}); err != nil {
		t.Errorf("after Close: %v", err)
	}
	r.Close()
}

// Close ends Run without an error and without spinning; so does a context that ended before.
func TestReaderEnds(t *testing.T) {
	path := testNamespace(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	r, err := NewReader(ReaderConfig{Namespace: path})
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Run(ended, func(flow.Record) {}); err != nil {
		t.Errorf("context ended before: %v", err)
	}
	done := make(chan error)
	go func() { done <- r.Run(context.Background(), func(flow.Record) {}) }()
	time.Sleep(20 * time.Millisecond)
	select {
	case err := <-done:
		t.Fatalf("a second Run ended at once: %v", err)
	default:
	}
	r.Close()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Run goes on after Close")
	}
	if err := r.Run(context.Background(), nil); err != nil {
		t.Errorf("Run after Close: %v", err)
	}
}

// A process of the container with CAP_NET_ADMIN cannot tell us of packets that never were.
func TestReaderRefusesForgedRecords(t *testing.T) {
	path := testNamespace(t)
	testLoad(t, path, readerRules)
	r, err := NewReader(ReaderConfig{Namespace: path})
	if err != nil {
		t.Fatal(err)
	}
	records := testRecords(t, r)
	var port uint32
	if err := r.sock.raw.Control(func(fd uintptr) {
		sa, err := unix.Getsockname(int(fd))
		if err != nil {
			t.Error(err)
			return
		}
		port = sa.(*unix.SockaddrNetlink).Pid
	}); err != nil {
		t.Fatal(err)
	}
	body := testLogMessage(2, 0, PrefixOutAllow, testPacket(t, testIPv4(6), testSYN()))
	err = testForge(path, unix.NETLINK_NETFILTER, port, 0, nflogPacket, body)
	if !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("sending to the reader's socket: %v, want connection refused", err)
	}
	testConnect(t, path, "127.0.0.1:8080")
	if got := testNext(t, records); got.Port != 8080 {
		t.Errorf("a forged record came through: %+v", got)
	}
}

// testForge sends a netlink message from a socket of its own to another socket or a group.
func testForge(path string, protocol int, port, groups uint32, kind uint16, body []byte) error {
	return Enter(path, func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, protocol)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, testNetlinkMessage(kind, body), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: port, Groups: groups})
	})
}

func testNetlinkMessage(kind uint16, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(16+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return append(append(b, make([]byte, 10)...), body...) // flags, sequence number, port
}

func TestReaderWithoutNamespace(t *testing.T) {
	requireRoot(t)
	_, err := NewReader(ReaderConfig{Namespace: "/run/netns/bhfw-not-there"})
	if !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// From the socket to the record nothing is allocated.
func TestReaderDoesNotAllocate(t *testing.T) {
	path := testNamespace(t)
	testLoad(t, path, readerRules)
	r, err := NewReader(ReaderConfig{Namespace: path})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd := -1
	if err := Enter(path, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	now, packet := time.Now(), []byte("hello")
	to := &unix.SockaddrInet4{Port: 53, Addr: [4]byte{127, 0, 0, 1}}
	_ = r.sock.conn.SetReadDeadline(now.Add(30 * time.Second))
	n := 0
	f, desk := func(flow.Record, int) { n++ }, newReaderDesk()
	allocs := testing.AllocsPerRun(20, func() {
		_ = unix.Sendto(fd, packet, 0, to)
		b, err := r.sock.receive()
		if err != nil {
			t.Error(err)
		}
		r.batch(desk, b, now, f)
	})
	if allocs >= 1 || n < 20 { // below one: the runtime's own, now and then
		t.Errorf("%v allocations for each of %d records", allocs, n)
	}
}
