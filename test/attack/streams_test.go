package attack

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/firewall"
)

// stream is a connection on which somebody talks without end: a byte every two milliseconds.
type stream struct {
	name           string
	client, server net.Conn
	toClient       atomic.Int64 // bytes that arrived
	toServer       atomic.Int64
	told           chan error // each end's first error of reading
	halves         bool       // one end closed its half, which is no end
	wg             sync.WaitGroup
	cancel         context.CancelFunc
}

// talkers says who of a stream speaks.
type talkers uint8

const (
	clientTalks talkers = 1 << iota
	serverTalks
	othersClose // who does not speak has closed its half
)

// listen opens a TCP listener in a pod.
func (p *plot) listen(t testing.TB, port int) net.Listener {
	t.Helper()
	var l net.Listener
	must(t, firewall.Enter(p.path(), func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	}))
	t.Cleanup(func() { l.Close() })
	return l
}

// dial connects from a namespace; local is the own port, or 0.
func dial(path, network string, to netip.AddrPort, local int) (c net.Conn, err error) {
	err = firewall.Enter(path, func() error {
		d := net.Dialer{Timeout: 20 * time.Second}
		if local != 0 {
			d.LocalAddr = &net.UDPAddr{Port: local}
			d.Control = reuse
		}
		c, err = d.Dial(network, to.String())
		return err
	})
	return c, err
}

func reuse(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
}

// tcp makes a stream over TCP, to a listener of its own.
func tcp(t testing.TB, name, from string, server *plot, v6 bool, port int, who talkers) *stream {
	t.Helper()
	l := server.listen(t, port)
	c, err := dial(from, "tcp", netip.AddrPortFrom(server.addr(v6), uint16(port)), 0)
	must(t, err)
	s, err := l.Accept()
	must(t, err)
	if who&othersClose != 0 {
		if who&clientTalks == 0 {
			must(t, c.(*net.TCPConn).CloseWrite())
		}
		if who&serverTalks == 0 {
			must(t, s.(*net.TCPConn).CloseWrite())
		}
	}
	return begin(t, name, c, s, who)
}

// udp makes a stream between two connected sockets; the client spoke first.
func udp(t testing.TB, name string, client, server *plot, v6 bool, port int, who talkers) *stream {
	t.Helper()
	cp, sp := netip.AddrPortFrom(client.addr(v6), uint16(port)), netip.AddrPortFrom(server.addr(v6), uint16(port))
	s, err := dial(server.path(), "udp", cp, port)
	must(t, err)
	c, err := dial(client.path(), "udp", sp, port)
	must(t, err)
	_, err = c.Write([]byte{1})
	must(t, err)
	return begin(t, name, c, s, who)
}

func (p *plot) addr(v6 bool) netip.Addr {
	if v6 {
		return p.v6
	}
	return p.v4
}

func begin(t testing.TB, name string, c, s net.Conn, who talkers) *stream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	st := &stream{name: name, client: c, server: s, told: make(chan error, 2), halves: who&othersClose != 0, cancel: cancel}
	st.wg.Add(4) // all end with end
	go st.speak(ctx, c, who&clientTalks != 0)
	go st.speak(ctx, s, who&serverTalks != 0)
	go st.hear(c, &st.toClient)
	go st.hear(s, &st.toServer)
	t.Cleanup(st.end)
	if !eventually(func() bool {
		return (who&clientTalks == 0 || st.toServer.Load() > 3) && (who&serverTalks == 0 || st.toClient.Load() > 3)
	}) {
		t.Fatalf("%s: nobody hears anything before the change", name)
	}
	return st
}

func (st *stream) speak(ctx context.Context, c net.Conn, speaks bool) {
	defer st.wg.Done()
	for speaks && ctx.Err() == nil {
		// An error of a datagram is that of the one before, and no reason to stop.
		if _, err := c.Write([]byte{1}); err != nil && c.LocalAddr().Network() == "tcp" {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (st *stream) hear(c net.Conn, n *atomic.Int64) {
	defer st.wg.Done()
	buf := make([]byte, 4096)
	for {
		k, err := c.Read(buf)
		n.Add(int64(k))
		switch {
		case err == nil:
		case c.LocalAddr().Network() == "udp" && !isClosed(err):
		case err == io.EOF && st.halves:
			return
		default:
			select {
			case st.told <- err:
			default:
			}
			return
		}
	}
}

func isClosed(err error) bool {
	op, ok := err.(*net.OpError)
	return ok && op.Err == net.ErrClosed
}

func (st *stream) end() {
	st.cancel()
	st.client.Close()
	st.server.Close()
	st.wg.Wait()
}

// heard is how many bytes arrived at either end.
func (st *stream) heard() [2]int64 { return [2]int64{st.toClient.Load(), st.toServer.Load()} }

// deaf fails when a byte arrives within a while.
func deaf(t testing.TB, streams []*stream, while time.Duration) {
	t.Helper()
	before := make([][2]int64, len(streams))
	for i, st := range streams {
		before[i] = st.heard()
	}
	time.Sleep(while)
	for i, st := range streams {
		if now := st.heard(); now != before[i] {
			t.Errorf("%s: %d bytes to the client and %d to the server after the right was taken", st.name, now[0]-before[i][0], now[1]-before[i][1])
		}
	}
}

// alive fails when a stream does not go on.
func alive(t testing.TB, streams []*stream) {
	t.Helper()
	for _, st := range streams {
		before := st.heard()
		if !eventually(func() bool { now := st.heard(); return now[0] > before[0]+3 || now[1] > before[1]+3 }) {
			t.Errorf("%s: nothing more is heard, although it is allowed", st.name)
		}
	}
}
