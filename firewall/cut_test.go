package firewall

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

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
