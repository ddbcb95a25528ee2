package firewall

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// pollBudget is how many reads a socket has in a pollWindow. Whoever causes more is made to wait:
	// what the kernel's buffer cannot hold meanwhile is lost, which the socket is told of.
	pollBudget = 64
	pollWindow = 100 * time.Millisecond
)

// poller reads the sockets of many namespaces with one goroutine. The epoll set itself is waited for
// like any file, so that no thread blocks in it either.
type poller struct {
	file *os.File
	raw  syscall.RawConn
	buf  []byte // lent to one ready at a time

	mu    sync.Mutex
	last  int32
	socks map[int32]*polled
}

// polled is one socket of a poller. Its mutex is held while ready runs.
type polled struct {
	of    *poller
	id    int32
	ready func(buf []byte) // reads once

	mu     sync.Mutex
	fd     int
	began  time.Time // of the window
	reads  int       // in it
	paused *time.Timer
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make epoll set: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("make epoll set: %w", err), unix.Close(fd))
	}
	p := &poller{file: os.NewFile(uintptr(fd), "epoll set"), buf: make([]byte, kernelBuffer), socks: map[int32]*polled{}}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, p.file.Close())
	}
	return p, nil
}

// add takes a socket, which belongs to the poller from then on, also after an error. ready is called
// on the poller's goroutine when there is something to read, and must not close it.
func (p *poller) add(fd int, ready func(buf []byte)) (*polled, error) {
	p.mu.Lock()
	p.last++
	s := &polled{of: p, id: p.last, ready: ready, fd: fd}
	p.socks[s.id] = s
	p.mu.Unlock()
	if err := s.arm(); err != nil {
		return nil, errors.Join(fmt.Errorf("watch a socket: %w", err), s.close())
	}
	return s, nil
}

// run calls ready for what can be read, until ctx or the poller ends.
func (p *poller) run(ctx context.Context) error {
	_ = p.file.SetReadDeadline(time.Time{})
	defer context.AfterFunc(ctx, func() { _ = p.file.SetReadDeadline(time.Unix(1, 0)) })()
	var events [64]unix.EpollEvent
	for ctx.Err() == nil {
		n, err := 0, error(nil)
		waited := p.raw.Read(func(fd uintptr) bool {
			n, err = unix.EpollWait(int(fd), events[:], 0)
			return n > 0 || err != nil
		})
		switch {
		case errors.Is(waited, os.ErrClosed), errors.Is(waited, os.ErrDeadlineExceeded):
			if ctx.Err() == nil && !errors.Is(waited, os.ErrClosed) {
				continue
			}
			return nil
		case waited != nil:
			return fmt.Errorf("wait for sockets: %w", waited)
		case err != nil && err != unix.EINTR:
			return fmt.Errorf("wait for sockets: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			p.mu.Lock()
			s := p.socks[e.Fd]
			p.mu.Unlock()
			if s != nil {
				s.serve(p.buf)
			}
		}
	}
	return nil
}

// close ends run; sockets are closed by who added them.
func (p *poller) close() error { return p.file.Close() }

// arm has the poller look at the socket, level-triggered.
func (s *polled) arm() error {
	var err error
	if e := s.of.raw.Control(func(set uintptr) {
		err = unix.EpollCtl(int(set), unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: s.id})
	}); e != nil {
		return e
	}
	return err
}

// disarm takes it out: a socket with an error is told of as long as it is in.
func (s *polled) disarm() {
	_ = s.of.raw.Control(func(set uintptr) { _ = unix.EpollCtl(int(set), unix.EPOLL_CTL_DEL, s.fd, nil) })
}

// serve reads once, and pauses the socket when it has had its share.
func (s *polled) serve(buf []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 || s.paused != nil {
		return
	}
	now := time.Now()
	if now.Sub(s.began) >= pollWindow {
		s.began, s.reads = now, 0
	}
	s.reads++
	s.ready(buf)
	if s.reads >= pollBudget {
		s.disarm()
		s.paused = time.AfterFunc(pollWindow-now.Sub(s.began), s.resume)
	}
}

func (s *polled) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = nil
	if s.fd >= 0 {
		_ = s.arm() // it was armed before
	}
}

// close closes the socket; ready does not run any more when it returns.
func (s *polled) close() error {
	s.of.mu.Lock()
	delete(s.of.socks, s.id)
	s.of.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil
	}
	if s.paused != nil {
		s.paused.Stop()
	}
	fd := s.fd
	s.fd = -1
	return unix.Close(fd)
}

// readKernel reads what the kernel sent, once: one or more netlink messages. It gives nothing where
// there is nothing, or where a process sent it. ENOBUFS says that messages were lost.
//
// It calls recvfrom itself, since unix.Recvfrom allocates the sender's address.
func readKernel(fd int, buf []byte) ([]byte, error) {
	var from unix.RawSockaddrNetlink
	size := uint32(unix.SizeofSockaddrNetlink)
	n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)),
		unix.MSG_TRUNC|unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)))
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return nil, nil
	case errno != 0:
		return nil, errno
	case from.Pid != 0: // multicast by a process
		return nil, nil
	case int(n) > len(buf):
		return nil, fmt.Errorf("netlink message of %d bytes: larger than the buffer of %d", n, len(buf))
	}
	return buf[:n], nil
}
