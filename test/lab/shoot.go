package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

const (
	shooters = 640                    // probes in flight in the first rounds, each on a thread of its own
	patience = 400 * time.Millisecond // for an answer, in the first round; half as much again in later ones
	calmer   = 2                      // after a round that found many answers: so many times fewer in flight, and more patient
	// With two rounds an allowed probe was once called denied (load 14 on two cores, cause not traced);
	// with three, six batches of 10,000 at load 9 to 10 had none.
	leastRounds = 3
	mostRounds  = 6
)

// outcome of one shot.
type outcome struct {
	answer  string
	allowed bool
	took    time.Duration
	err     error // not a verdict: the probe cannot be made
}

// shootAll fires every shot, in rounds: what got no answer is tried again, since a packet lost on a
// busy machine must not be called a denial; more often as long as a round still finds answers that
// the one before had missed. Index i of the result belongs to shots[i]; nil shots are left out.
func shootAll(ctx context.Context, shots []*shot) []outcome {
	out := make([]outcome, len(shots))
	var todo []int
	for i, s := range shots {
		if s != nil {
			todo = append(todo, i)
		}
	}
	flight, wait := shooters, patience
	for round := 0; round < mostRounds && len(todo) > 0 && ctx.Err() == nil; round++ {
		volley(ctx, shots, out, todo, flight, wait)
		var silent []int
		for _, i := range todo {
			if !out[i].allowed && out[i].err == nil {
				silent = append(silent, i)
			}
		}
		found := len(todo) - len(silent)
		switch {
		case round == 0:
			wait = patience * 3 / 2
		case found*20 > len(todo): // the machine is starved, not unlucky
			flight, wait = max(flight/calmer, 16), wait*calmer
		case found == 0 && round+1 >= leastRounds:
			return out
		}
		todo = silent
	}
	return out
}

// volley fires the shots of todo once, so many at a time.
func volley(ctx context.Context, shots []*shot, out []outcome, todo []int, flight int, wait time.Duration) {
	work := make(chan int)
	var wg sync.WaitGroup
	for range min(flight, len(todo)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			runtime.LockOSThread() // never unlocked: the thread ends inside some namespace
			for i := range work {
				out[i] = shots[i].fire(ctx, i, wait)
			}
		}()
	}
	for _, i := range todo {
		work <- i
	}
	close(work)
	wg.Wait()
}

// fire makes one attempt. The calling thread must be locked; it is left in the client's namespace.
func (s *shot) fire(ctx context.Context, id int, wait time.Duration) outcome {
	if err := enter(nsPath(s.netns)); err != nil {
		return outcome{err: err}
	}
	token := fmt.Sprintf("probe-%d-%d", os.Getpid(), id)
	start := time.Now()
	deadline := start.Add(wait)
	var answer string
	var err error
	switch s.proto {
	case identity.ICMP, identity.ICMPv6:
		answer, err = s.ping(token, deadline)
	case identity.UDP:
		answer, err = s.datagram(token, deadline)
	case identity.SCTP:
		answer, err = s.association(token, deadline)
	default:
		answer, err = s.connection(ctx, token, deadline)
	}
	o := outcome{answer: answer, allowed: err == nil, took: time.Since(start)}
	if cannot(err) {
		o.err = err
	}
	return o
}

// cannot tells apart what is our side's inability from what a firewall does.
func cannot(err error) bool {
	return errors.Is(err, errNoSCTP) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
}

func (s *shot) connection(ctx context.Context, token string, deadline time.Time) (string, error) {
	d := net.Dialer{Deadline: deadline}
	if s.source.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: s.source.AsSlice()}
	}
	conn, err := d.DialContext(ctx, "tcp", s.server.String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if s.foreign {
		return "", nil
	}
	return ask(conn, token, deadline)
}

// ask sends a line and waits for the line that answers it.
func ask(conn net.Conn, token string, deadline time.Time) (string, error) {
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
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

// datagram sends twice, so that one lost packet is no denial.
func (s *shot) datagram(token string, deadline time.Time) (string, error) {
	var local *net.UDPAddr
	if s.source.IsValid() {
		local = net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.source, 0))
	}
	conn, err := net.DialUDP("udp", local, net.UDPAddrFromAddrPort(s.server))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return exchange(conn, []byte(token), deadline, func(got []byte) (string, bool) { return answered(string(got), token) })
}

// exchange sends msg now and at half time, and waits for the answer that accept takes.
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
func (s *shot) ping(token string, deadline time.Time) (string, error) {
	family, request, reply := unix.AF_INET, byte(8), byte(0)
	proto := unix.IPPROTO_ICMP
	if s.server.Addr().Is6() {
		family, request, reply, proto = unix.AF_INET6, 128, 129, unix.IPPROTO_ICMPV6
	}
	conn, err := s.dialRaw(family, unix.SOCK_DGRAM, proto, deadline)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	msg := append([]byte{request, 0, 0, 0, 0, 0, 0, 0}, token...)
	binary.BigEndian.PutUint16(msg[6:], 1)
	return exchange(conn, msg, deadline, func(got []byte) (string, bool) {
		return s.server.Addr().String(), len(got) > 8 && got[0] == reply && string(got[8:]) == token
	})
}

// association is one try over SCTP, one-to-one style (sctp(7)).
func (s *shot) association(token string, deadline time.Time) (string, error) {
	family := unix.AF_INET
	if s.server.Addr().Is6() {
		family = unix.AF_INET6
	}
	conn, err := s.dialRaw(family, unix.SOCK_STREAM, unix.IPPROTO_SCTP, deadline)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return ask(conn, token, deadline)
}

// dialRaw connects a socket of a kind that package net does not make, and lets package net use it.
// A stream's connect is waited for by poll.
func (s *shot) dialRaw(family, kind, proto int, deadline time.Time) (net.Conn, error) {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return nil, noSCTP(err)
	}
	f := os.NewFile(uintptr(fd), "probe")
	defer f.Close() // FileConn has its own copy
	if s.source.IsValid() {
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(s.source, 0))); err != nil {
			return nil, err
		}
	}
	err = unix.Connect(fd, sockaddr(s.server))
	if errors.Is(err, unix.EINPROGRESS) {
		if !writable(fd, deadline) {
			return nil, os.ErrDeadlineExceeded
		}
		errno, optErr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err = optErr; errno != 0 {
			err = unix.Errno(errno)
		}
	}
	if err != nil {
		return nil, err
	}
	return net.FileConn(f)
}

// writable waits until a connect has ended, well or not.
func writable(fd int, deadline time.Time) bool {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(max(time.Until(deadline), 0).Milliseconds()))
		if errors.Is(err, unix.EINTR) { // the runtime's own signals
			continue
		}
		return err == nil && n > 0
	}
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
