package lab

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// connect makes a socket, begins to connect it, and lets package net wait for it: the thread that made
// it is free for the next one.
func (s *shot) connect(kind, proto int) (net.Conn, error) {
	family := unix.AF_INET
	if s.server.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return nil, noSCTP(err)
	}
	f := os.NewFile(uintptr(fd), "probe")
	defer f.Close() // FileConn has its own copy
	if kind == unix.SOCK_STREAM {
		// Else a connection that has ended keeps its port for a minute from a probe that wants somebody to
		// listen there.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return nil, &unable{err}
		}
	}
	if s.source.IsValid() {
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(s.source, 0))); err != nil {
			return nil, err
		}
	}
	if err := unix.Connect(fd, sockaddr(s.server)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return nil, err
	}
	return net.FileConn(f)
}

// isRaw says whether a connection is over a raw socket.
func isRaw(conn net.Conn) bool {
	_, raw := conn.(*net.IPConn)
	return raw
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// stream waits for a TCP or SCTP connection (one-to-one style, sctp(7)) and for the answer over it.
func (s *shot) stream(conn net.Conn, token string, deadline time.Time) (string, error) {
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	if err := connected(conn); err != nil {
		return "", err
	}
	if s.foreign {
		return "", nil
	}
	return ask(conn, token)
}

// connected waits until a connect has ended, well or not.
func connected(conn net.Conn) error {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return errors.New("not a socket")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		errno, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && errno != 0 {
			err = unix.Errno(errno)
		}
		if err != nil {
			failed = err
			return true
		}
		_, err = unix.Getpeername(int(fd))
		return err == nil
	})
	return errors.Join(failed, err)
}

// ask sends a line and waits for the line that answers it.
func ask(conn net.Conn, token string) (string, error) {
	if _, err := conn.Write([]byte(token + "\n")); err != nil {
		return "", err
	}
	var got []byte
	buf := make([]byte, 512)
	for {
		n, err := conn.Read(buf)
		got = append(got, buf[:n]...)
		if who, ok := answered(string(got), token+"\n"); ok {
			return who, nil
		}
		if err != nil {
			return "", err
		}
		if len(got) > 4096 {
			return "", errors.New("not an echo")
		}
	}
}

// answered splits "who token".
func answered(got, token string) (string, bool) {
	return strings.CutSuffix(got, " "+token)
}

// exchange sends msg now and at half time, so that one lost packet is no denial, and waits for the
// answer that accept takes.
func exchange(conn net.Conn, msg []byte, deadline time.Time, accept func([]byte) (string, bool)) (string, error) {
	buf := make([]byte, 2048)
	half := time.Now().Add(time.Until(deadline) / 2)
	var last error
	for _, until := range []time.Time{half, deadline} {
		// Refused, unreachable or not permitted: Read says so too, or nothing comes.
		_, _ = conn.Write(msg)
		if err := conn.SetReadDeadline(until); err != nil {
			return "", err
		}
		for {
			n, err := conn.Read(buf)
			if err != nil {
				last = err
				break
			}
			if who, ok := accept(buf[:n]); ok {
				return who, nil
			}
		}
	}
	return "", last
}

// ping sends an echo request through an ICMP socket (icmp(7)): the kernel fills in identifier and
// checksum and hands back only replies to it.
func (s *shot) ping(conn net.Conn, token string, deadline time.Time) (string, error) {
	request, reply := byte(8), byte(0)
	if s.server.Addr().Is6() {
		request, reply = 128, 129
	}
	msg := append([]byte{request, 0, 0, 0, 0, 0, 0, 0}, token...)
	binary.BigEndian.PutUint16(msg[6:], 1)
	return exchange(conn, msg, deadline, func(got []byte) (string, bool) {
		return s.server.Addr().String(), len(got) > 8 && got[0] == reply && string(got[8:]) == token
	})
}
