package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

const (
	maxEchoConns = 16384 // open connections to the agent's listeners, all together
	maxEchoLine  = 64 << 10
)

// door is one port of one namespace.
type door struct {
	NetNS    string
	Protocol identity.Protocol
	Port     uint16
}

// echoes holds the listeners of a lab. They answer every line (TCP, SCTP) or datagram (UDP) with
// the name of the workload, a space, and what they got.
type echoes struct {
	ctx  context.Context
	wg   sync.WaitGroup // accept loops, datagram loops, connections
	room chan struct{}  // one token per open connection

	mu   sync.Mutex
	open map[door]*listener
}

type listener struct {
	users   int
	foreign bool // another program has the port
	close   func() error
}

func newEchoes(ctx context.Context) *echoes {
	return &echoes{ctx: ctx, room: make(chan struct{}, maxEchoConns), open: map[door]*listener{}}
}

// acquire opens doors, or counts one more user where they are open, and tells which of them other
// programs hold. All doors are of one namespace. name gives the answer's first word from the
// address that was called.
func (e *echoes) acquire(netns string, doors []door, name func(netip.Addr) string) (map[door]error, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	failed := map[door]error{}
	err := within(nsPath(netns), func() error {
		for _, d := range doors {
			if l := e.open[d]; l != nil {
				l.users++
				continue
			}
			l, err := e.listenLocked(d, name)
			switch {
			case errors.Is(err, unix.EADDRINUSE):
				e.open[d] = &listener{users: 1, foreign: true, close: func() error { return nil }}
			case err != nil:
				failed[d] = err
			default:
				e.open[d] = l
			}
		}
		return nil
	})
	return failed, err
}

// foreign says whether another program listens there.
func (e *echoes) foreign(d door) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.open[d] != nil && e.open[d].foreign
}

// release is the reverse of acquire for one door.
func (e *echoes) release(d door) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.open[d]
	if l == nil {
		return
	}
	if l.users--; l.users == 0 {
		l.close()
		delete(e.open, d)
	}
}

// drop ends the listeners of a namespace that is no more; another of its name may be there.
func (e *echoes) drop(netns string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for d, l := range e.open {
		if d.NetNS == netns {
			l.close()
			delete(e.open, d)
		}
	}
}

// close ends all listeners and waits for their goroutines.
func (e *echoes) close() {
	e.mu.Lock()
	for d, l := range e.open {
		l.close()
		delete(e.open, d)
	}
	e.mu.Unlock()
	e.wg.Wait()
}

func (e *echoes) listenLocked(d door, name func(netip.Addr) string) (*listener, error) {
	switch d.Protocol {
	case identity.TCP, identity.SCTP:
		ln, err := listenStream(d.Protocol, d.Port)
		if errors.Is(err, errNoSCTP) {
			return e.listenRaw(d)
		}
		if err != nil {
			return nil, err
		}
		e.wg.Add(1) // given back by accept
		go e.accept(ln, name)
		return &listener{users: 1, close: ln.Close}, nil
	case identity.UDP:
		conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(d.Port)})
		if err != nil {
			return nil, err
		}
		if err := tellDestination(conn); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		e.wg.Add(1) // given back by datagrams
		go e.datagrams(conn, name)
		return &listener{users: 1, close: conn.Close}, nil
	}
	return nil, fmt.Errorf("protocol %s: nothing to listen with", d.Protocol)
}

// listenRaw answers for a kernel without SCTP sockets.
func (e *echoes) listenRaw(d door) (*listener, error) {
	echo, err := openSCTP()
	if err != nil {
		return nil, err
	}
	for _, conn := range echo.conns {
		e.wg.Add(1)
		go func() {
			defer e.wg.Done()
			echo.answer(conn, d.Port)
		}()
	}
	return &listener{users: 1, close: echo.close}, nil
}

// listenStream listens on every address of both families.
func listenStream(proto identity.Protocol, port uint16) (net.Listener, error) {
	if proto == identity.TCP {
		return net.ListenTCP("tcp", &net.TCPAddr{Port: int(port)})
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_SCTP)
	if err != nil {
		return nil, noSCTP(err)
	}
	f := os.NewFile(uintptr(fd), "sctp")
	defer f.Close() // FileListener has its own copy
	err = errors.Join(unix.Bind(fd, &unix.SockaddrInet6{Port: int(port)}), unix.Listen(fd, 128))
	if err != nil {
		return nil, err
	}
	// A one-to-one SCTP socket is used like TCP's, and package net tells them by SOCK_STREAM alone.
	return net.FileListener(f)
}

func noSCTP(err error) error {
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT) {
		return errNoSCTP
	}
	return err
}

var errNoSCTP = errors.New("this kernel has no SCTP sockets")

// tellDestination makes the kernel say to which of our addresses each datagram came.
func tellDestination(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	})
	return errors.Join(err, set)
}

// accept ends when the listener is closed.
func (e *echoes) accept(ln net.Listener, name func(netip.Addr) string) {
	defer e.wg.Done()
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, connection gone before accept: the next may work
			time.Sleep(10 * time.Millisecond)
			continue
		}
		select {
		case e.room <- struct{}{}:
			e.wg.Add(1) // given back by serve
			go e.serve(conn, name)
		default:
			conn.Close()
		}
	}
}

// serve ends with the connection, or with the agent.
func (e *echoes) serve(conn net.Conn, name func(netip.Addr) string) {
	defer e.wg.Done()
	defer func() { <-e.room }()
	defer conn.Close()
	stop := context.AfterFunc(e.ctx, func() { conn.Close() })
	defer stop()
	who := name(localAddr(conn.LocalAddr()))
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 0, 256), maxEchoLine)
	for lines.Scan() {
		if _, err := fmt.Fprintf(conn, "%s %s\n", who, lines.Bytes()); err != nil {
			return
		}
	}
}

// datagrams ends when the socket is closed.
func (e *echoes) datagrams(conn *net.UDPConn, name func(netip.Addr) string) {
	defer e.wg.Done()
	buf := make([]byte, 64<<10)
	oob := make([]byte, 128)
	for {
		n, m, _, from, err := conn.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // an ICMP error of an earlier answer
			continue
		}
		answer := append([]byte(name(destination(oob[:m]))+" "), buf[:n]...)
		// The same control message sends from the address that was called. A full queue loses the
		// answer, as on any network.
		_, _, _ = conn.WriteMsgUDPAddrPort(answer, oob[:m], from)
	}
}

// destination reads the address out of IPV6_PKTINFO (struct in6_pktinfo, ipv6(7)).
func destination(oob []byte) netip.Addr {
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range msgs {
		if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16 {
			return netip.AddrFrom16([16]byte(m.Data[:16])).Unmap()
		}
	}
	return netip.Addr{}
}

func localAddr(a net.Addr) netip.Addr {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}
