package firewall

import (
	"encoding/binary"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// processTime is the CPU time of the whole process so far.
func processTime(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchLog opens Readers over a namespace with our real rules in mode learn, and a way to send to it.
func benchLog(b *testing.B) (send func(to netip.AddrPort), heard *atomic.Uint64, r *Reader) {
	b.Helper()
	path := testNamespace(b)
	name, sink := filepath.Base(path), testNamespace(b) // where what is sent ends
	testRun(b, "ip", "-n", name, "link", "add", "d0", "type", "veth", "peer", "name", "d0", "netns", filepath.Base(sink))
	testRun(b, "ip", "-n", filepath.Base(sink), "link", "set", "d0", "up")
	testRun(b, "ip", "-n", name, "link", "set", "d0", "up")
	testRun(b, "ip", "-n", name, "addr", "add", "10.1.0.5/8", "dev", "d0")
	testRun(b, "ip", "-n", name, "neigh", "add", "10.2.0.1", "lladdr", "02:00:00:00:00:01", "dev", "d0")
	ns, err := Open(Config{NetNS: path, Node: testNamespace(b)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ns.Close() })
	if _, err := ns.Apply(Compile(Spec{Mode: policy.Learn})); err != nil {
		b.Fatal(err)
	}
	p := testReaders(b)
	if r, err = NewReader(ReaderConfig{Namespace: path, Confirm: true}); err != nil {
		b.Fatal(err)
	}
	heard = &atomic.Uint64{}
	if err := p.Add(r, func(flow.Record) { heard.Add(1) }, func(err error) { b.Error(err) }); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.Remove(r); r.Close() })
	fd := -1
	if err := Enter(path, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { unix.Close(fd) })
	return func(to netip.AddrPort) {
		_ = unix.Sendto(fd, []byte("x"), unix.MSG_DONTWAIT, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	}, heard, r
}

// BenchmarkLogRepeated: connections to a peer that is known cost us nothing: the kernel folds them,
// whatever their number. The unit that matters is records/op, nearly zero.
func BenchmarkLogRepeated(b *testing.B) {
	send, heard, _ := benchLog(b)
	to := netip.MustParseAddrPort("10.2.0.1:80")
	send(to)
	for b.Loop() {
		send(to)
	}
	b.ReportMetric(float64(heard.Load())/float64(b.N), "records/op")
}

// BenchmarkLogDistinct: every datagram is an edge of its own, up to what the set takes; each is
// handed on or counted as lost.
func BenchmarkLogDistinct(b *testing.B) {
	send, heard, r := benchLog(b)
	n := min(b.N, SeenSize-1000)
	b.ResetTimer()
	for i := range n {
		send(netip.AddrPortFrom(netip.MustParseAddr("10.2.0.1"), uint16(1+i)))
	}
	for deadline := time.Now().Add(20 * time.Second); heard.Load()+r.Stats().Lost < uint64(n) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	b.ReportMetric(float64(heard.Load())/float64(n), "heard/op")
	b.ReportMetric(float64(r.Stats().Lost)/float64(n), "lost/op")
}

// BenchmarkLogRead is what one message costs the reader alone, without the socket.
func BenchmarkLogRead(b *testing.B) {
	r, desk := &Reader{}, newReaderDesk()
	var read []byte
	for range 48 {
		body := testLogMessage(2, 0, PrefixOutAllow, testPacket(b, testIPv4(6), testSYN()))
		msg := testNetlinkMessage(nflogPacket, body)
		binary.NativeEndian.PutUint32(msg, uint32(len(msg)))
		for len(msg)%4 != 0 {
			msg = append(msg, 0)
		}
		read = append(read, msg...)
	}
	now := time.Now()
	before := processTime(b)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n += r.batch(desk, read, now, func(flow.Record, int) {})
	}
	b.ReportMetric(float64((processTime(b)-before).Nanoseconds())/float64(max(n, 1)), "cpu-ns/message")
}
