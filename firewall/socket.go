package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// socket is a netfilter netlink socket in one namespace. Tables that were made through it with the
// owner flag belong to it until it is closed.
//
// The kernel works on a request while it is being sent: all of the answer is there when sending
// returns, so that nothing here ever waits.
type socket struct {
	fd    int
	port  uint32 // the number by which the kernel knows the owner of a table
	where string // for errors: the namespace
	seq   uint32
	room  int // largest message that fits in the send buffer

	// calm takes lists that the kernel says were interrupted: what is listed is of a table that belongs
	// to this socket, so that it was something else that changed. Somebody in the container who changes
	// his own tables in a loop would keep us from ever reading ours.
	calm bool

	// fault is what the kernel answers instead, for tests: before or after it did what was asked. nil:
	// nothing, as ever.
	fault func(done bool) error
}

func (s *socket) fail(done bool) error {
	if s.fault == nil {
		return nil
	}
	return s.fault(done)
}

// errAgain says that the kernel's answer was lost or that something changed in between: what is in
// force must be read again.
var errAgain = errors.New("the ruleset changed, or the kernel's answer was lost; read it again")

// openSocket opens a socket in the namespace.
func openSocket(ns *os.File, where string) (*socket, error) {
	s := &socket{fd: -1, where: where, seq: 1}
	err := EnterFile(ns, func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
		s.fd = fd
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open nftables socket in %s: %w", where, err)
	}
	if err := s.setUp(); err != nil {
		return nil, errors.Join(fmt.Errorf("set up nftables socket in %s: %w", where, err), s.close())
	}
	return s, nil
}

func (s *socket) setUp() error {
	if err := unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	return s.prepare()
}

// prepare learns the socket's port and sets its options.
func (s *socket) prepare() error {
	name, err := unix.Getsockname(s.fd)
	if err != nil {
		return err
	}
	s.port = name.(*unix.SockaddrNetlink).Pid
	// The kernel is our only peer: what somebody in the container sends us is refused, so that it cannot
	// fill our buffer and have answers lost. (netlink_getsockbyportid in net/netlink/af_netlink.c.)
	if err := unix.Connect(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	// Extended errors name the attribute that the kernel did not like; without the request itself.
	for _, opt := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK} {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, opt, 1); err != nil {
			return err
		}
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20); err != nil {
		return err
	}
	return s.makeRoom(4 << 20)
}

// makeRoom sees to it that a batch of n bytes can be sent at once: a batch in two parts would be two
// transactions.
func (s *socket) makeRoom(n int) error {
	if n <= s.room {
		return nil
	}
	// The kernel doubles the number, for its own book-keeping.
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, n); err != nil {
		return fmt.Errorf("send buffer of %d bytes: %w", n, err)
	}
	s.room = n
	return nil
}

func (s *socket) close() error {
	if s == nil || s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd = -1
	return unix.Close(fd)
}

// commit sends the batch as one transaction. The error names the message that the kernel refused;
// then nothing of the batch is in force.
func (s *socket) commit(b *batch) error {
	if len(b.labels) < 2 {
		return nil
	}
	last := b.finish(s.seq)
	first := s.seq
	s.seq += uint32(len(b.labels))
	if err := s.makeRoom(len(b.buf) + 4096); err != nil {
		return fmt.Errorf("%s: %w", s.where, err)
	}
	s.drain()
	if err := s.fail(false); err != nil {
		return fmt.Errorf("%s: send rules: %w", s.where, err)
	}
	if err := s.send(b.buf); err != nil {
		return fmt.Errorf("%s: send %d bytes of rules: %w", s.where, len(b.buf), err)
	}
	if err := s.fail(true); err != nil {
		return fmt.Errorf("%s: receive from nftables: %w", s.where, err)
	}
	done := false
	var refused error
	err := s.receive(func(m message) bool {
		if m.kind != unix.NLMSG_ERROR || m.seq < first || m.seq > first+last+1 {
			return true
		}
		errno, text := m.errno()
		switch {
		case errno == 0:
			done = done || m.seq == first+last
		case refused == nil || m.seq > first:
			// The kernel may name the batch as a whole first, and then the message.
			refused = s.refusal(b.labels[m.seq-first], errno, text)
		}
		return true
	})
	switch {
	case refused != nil:
		return refused
	case err != nil:
		return err
	case !done:
		return fmt.Errorf("%s: %w", s.where, errAgain)
	}
	return nil
}

func (s *socket) refusal(label string, errno unix.Errno, text string) error {
	if text != "" {
		return fmt.Errorf("%s: %s: %w (%s)", s.where, label, errno, text)
	}
	return fmt.Errorf("%s: %s: %w", s.where, label, errno)
}

func (s *socket) send(b []byte) error {
	for {
		err := unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err != unix.EINTR {
			return err
		}
	}
}

// drain throws away answers that nobody waits for any more.
func (s *socket) drain() {
	_ = s.receive(func(message) bool { return true })
}

// message is one netlink message received. data follows struct nfgenmsg where there is one.
type message struct {
	kind  uint16
	flags uint16
	seq   uint32
	body  []byte
}

// errno reads NLMSG_ERROR: zero is an acknowledgement. The text is the kernel's own, often empty.
func (m message) errno() (unix.Errno, string) {
	if len(m.body) < 4+headerSize {
		return unix.EPROTO, ""
	}
	errno := unix.Errno(-int32(binary.NativeEndian.Uint32(m.body)))
	text := ""
	if m.flags&unix.NLM_F_ACK_TLVS != 0 {
		text = cstring(find(readAttrs(m.body[4+headerSize:]), unix.NLMSGERR_ATTR_MSG))
	}
	return errno, text
}

// receiveRoom lends what is read into, the largest message of a dump: too much to keep one for each socket.
var receiveRoom = sync.Pool{New: func() any { b := make([]byte, 1<<16); return &b }}

// receive hands over every message that is waiting, until f says false.
func (s *socket) receive(f func(message) bool) error {
	room := receiveRoom.Get().(*[]byte)
	defer receiveRoom.Put(room)
	buf := *room
	for {
		n, _, flags, from, err := unix.Recvmsg(s.fd, buf, nil, unix.MSG_DONTWAIT)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return nil
		case err == unix.ENOBUFS:
			return fmt.Errorf("%s: %w: %w", s.where, errAgain, err)
		case err != nil:
			return fmt.Errorf("%s: receive from nftables: %w", s.where, err)
		case !fromKernel(from): // a process in the container with CAP_NET_ADMIN may send, too
			continue
		case flags&unix.MSG_TRUNC != 0:
			return fmt.Errorf("%s: receive from nftables: message longer than %d bytes", s.where, len(buf))
		}
		for b := buf[:n]; len(b) >= headerSize; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < headerSize || size > len(b) {
				break
			}
			m := message{binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]),
				binary.NativeEndian.Uint32(b[8:]), b[headerSize:size]}
			if !f(m) {
				return nil
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

// fromKernel says whether the kernel sent a message: its port is 0.
func fromKernel(from unix.Sockaddr) bool {
	a, ok := from.(*unix.SockaddrNetlink)
	return ok && a.Pid == 0
}

// dump asks for a list and hands over each entry's attributes. What f keeps it must copy.
func (s *socket) dump(kind int, family Family, what string, fill func(*attrs), f func(Family, []attr)) error {
	return s.ask(kind, unix.NLM_F_DUMP, family, what, fill, f)
}

// get asks for one thing; found is false where it does not exist.
func (s *socket) get(kind int, family Family, what string, fill func(*attrs), f func(Family, []attr)) (bool, error) {
	err := s.ask(kind, unix.NLM_F_ACK, family, what, fill, f)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

func (s *socket) ask(kind int, flags uint16, family Family, what string, fill func(*attrs), f func(Family, []attr)) error {
	s.seq++
	s.drain()
	buf := attrs(appendHeader(nil, unix.NFNL_SUBSYS_NFTABLES<<8|uint16(kind), flags|unix.NLM_F_REQUEST, uint8(family)))
	if fill != nil {
		fill(&buf)
	}
	binary.NativeEndian.PutUint32(buf, uint32(len(buf)))
	binary.NativeEndian.PutUint32(buf[8:], s.seq)
	err := s.fail(false)
	if err == nil {
		err = s.send(buf)
	}
	if err == nil {
		err = s.fail(true)
	}
	if err != nil {
		return fmt.Errorf("%s: read %s: %w", s.where, what, err)
	}
	var failed error
	complete, interrupted := false, false
	err = s.receive(func(m message) bool {
		if m.seq != s.seq {
			return true
		}
		interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
		switch {
		case m.kind == unix.NLMSG_DONE:
			complete = true
		case m.kind == unix.NLMSG_ERROR:
			if errno, text := m.errno(); errno != 0 {
				failed = s.refusal("read "+what, errno, text)
			}
			complete = true
		case len(m.body) >= genSize:
			f(Family(m.body[0]), readAttrs(m.body[genSize:]))
		}
		return true
	})
	switch {
	case err != nil:
		return err
	case failed != nil:
		if errors.Is(failed, syscall.EINTR) {
			return fmt.Errorf("%w: %w", errAgain, failed)
		}
		return failed
	case interrupted && !s.calm || !complete:
		return fmt.Errorf("%s: read %s: %w", s.where, what, errAgain)
	}
	return nil
}
