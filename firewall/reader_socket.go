package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// kernelBuffer is the size of one read, in bytes. It holds the largest log batch (logBatch) and the
// largest notification (an interface with virtual functions, some 16 KiB).
const kernelBuffer = 32 << 10

// kernelSocket is a netlink socket inside a namespace that hears the kernel and nobody else: a
// process in the container with CAP_NET_ADMIN may send to any netlink socket of its namespace, and
// would otherwise tell us of packets and changes that never were.
//
// It reads what the kernel sends on its own account without allocating, and reports every loss
// (ENOBUFS). receive is for one goroutine, Close for any.
type kernelSocket struct {
	conn   *netlink.Conn
	raw    syscall.RawConn
	closed atomic.Bool

	buf  []byte // nil: made by the first receive
	from unix.RawSockaddrNetlink
	n    int
	err  error
	once func(fd uintptr) (done bool)
}

// openKernelSocket opens a netlink socket of a protocol (NETLINK_NETFILTER, NETLINK_ROUTE) in the
// namespace at path; empty: the process's own. buffer is the kernel's receive buffer in bytes.
func openKernelSocket(path string, protocol, buffer int) (*kernelSocket, error) {
	conn, err := dialKernel(path, protocol)
	if err != nil {
		return nil, err
	}
	s := &kernelSocket{conn: conn}
	s.once = s.receiveOnce
	if s.raw, err = conn.SyscallConn(); err == nil {
		err = s.connect()
	}
	if err == nil {
		err = conn.SetReadBuffer(buffer)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("set up netlink socket in %s: %w", kernelPlace(path), err)
	}
	return s, nil
}

// dialKernel opens a netlink connection in the namespace at path; empty: the process's own.
func dialKernel(path string, protocol int) (conn *netlink.Conn, err error) {
	dial := func() error {
		conn, err = netlink.Dial(protocol, nil)
		return err
	}
	if path == "" {
		err = dial()
	} else {
		err = Enter(path, dial)
	}
	if err != nil {
		return nil, fmt.Errorf("open netlink socket in %s: %w", kernelPlace(path), err)
	}
	return conn, nil
}

func kernelPlace(path string) string {
	if path == "" {
		return "own network namespace"
	}
	return path
}

// connect makes the kernel our only peer: unicast from other sockets is refused at their send, so
// that it cannot even fill our buffer. (netlink_getsockbyportid in net/netlink/af_netlink.c.)
func (s *kernelSocket) connect() error {
	var err error
	if e := s.raw.Control(func(fd uintptr) {
		err = unix.Connect(int(fd), &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}); e != nil {
		return e
	}
	return err
}

// receive waits for what the kernel sends next: one or more netlink messages, valid until the next
// call. ENOBUFS says that messages were lost; the socket goes on working.
func (s *kernelSocket) receive() ([]byte, error) {
	if s.buf == nil {
		s.buf = make([]byte, kernelBuffer)
	}
	for {
		if err := s.raw.Read(s.once); err != nil {
			return nil, s.end(err)
		}
		if b, err, more := s.received(); !more {
			return b, err
		}
	}
}

// poll is receive that reads into a buffer which others use, too, and does not wait: EAGAIN says
// that there is nothing to read. It is for one goroutine, as receive is.
func (s *kernelSocket) poll(buf []byte) ([]byte, error) {
	s.buf = buf
	defer func() { s.buf = nil }()
	for {
		empty := false
		if err := s.raw.Read(func(fd uintptr) bool { empty = !s.receiveOnce(fd); return true }); err != nil {
			return nil, s.end(err)
		}
		if empty {
			return nil, unix.EAGAIN
		}
		if b, err, more := s.received(); !more {
			return b, err
		}
	}
}

func (s *kernelSocket) end(err error) error {
	if s.closed.Load() {
		return os.ErrClosed
	}
	return err
}

// received judges what receiveOnce read; more says that it was nothing for us.
func (s *kernelSocket) received() (b []byte, err error, more bool) {
	switch {
	case errors.Is(s.err, unix.EINTR):
		return nil, nil, true
	case s.err != nil:
		return nil, s.err, false
	case s.from.Pid != 0: // multicast by a process: connect does not keep it out
		return nil, nil, true
	case s.n > len(s.buf):
		return nil, fmt.Errorf("netlink message of %d bytes: larger than the buffer of %d", s.n, len(s.buf)), false
	}
	return s.buf[:s.n], nil, false
}

// receiveOnce reads if there is something to read. It calls recvfrom itself, since unix.Recvfrom
// allocates the sender's address.
func (s *kernelSocket) receiveOnce(fd uintptr) bool {
	size := uint32(unix.SizeofSockaddrNetlink)
	n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, fd,
		uintptr(unsafe.Pointer(&s.buf[0])), uintptr(len(s.buf)), unix.MSG_TRUNC,
		uintptr(unsafe.Pointer(&s.from)), uintptr(unsafe.Pointer(&size)))
	s.n, s.err = int(n), nil
	if errno == unix.EAGAIN {
		return false
	}
	if errno != 0 {
		s.n, s.err = 0, errno
	}
	return true
}

// interrupt ends a receive that waits, now or later, with os.ErrDeadlineExceeded; resume takes that
// back.
func (s *kernelSocket) interrupt() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) }
func (s *kernelSocket) resume()    { _ = s.conn.SetReadDeadline(time.Time{}) }

// Close ends a receive that waits with os.ErrClosed.
func (s *kernelSocket) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	return s.conn.Close()
}

// kernelMessage is one netlink message inside a receive buffer.
type kernelMessage struct {
	kind uint16 // subsystem << 8 | message for nfnetlink
	seq  uint32 // of the request that caused it
	port uint32 // of the socket that caused it
	body []byte
}

// kernelMessages walks the messages of one read. It ends at the first that does not fit.
func kernelMessages(b []byte) iter.Seq[kernelMessage] {
	return func(yield func(kernelMessage) bool) {
		for len(b) >= unix.NLMSG_HDRLEN {
			n := int(binary.NativeEndian.Uint32(b))
			if n < unix.NLMSG_HDRLEN || n > len(b) {
				return
			}
			m := kernelMessage{
				kind: binary.NativeEndian.Uint16(b[4:]),
				seq:  binary.NativeEndian.Uint32(b[8:]),
				port: binary.NativeEndian.Uint32(b[12:]),
				body: b[unix.NLMSG_HDRLEN:n],
			}
			if !yield(m) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}
