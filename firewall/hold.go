package firewall

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Hold gives a copy of the socket that owns the tables in the workload's namespace. While any copy is
// open the tables stay owned, so that nobody in the container can change them, whether this process runs
// or not. The next one hands it to [Config.Socket].
func (ns *Namespace) Hold() (*os.File, error) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.closed {
		return nil, fmt.Errorf("network namespace %s: %w", ns.path, os.ErrClosed)
	}
	fd, err := unix.FcntlInt(uintptr(ns.in.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("copy nftables socket of %s: %w", ns.path, err)
	}
	return os.NewFile(uintptr(fd), "nftables socket of "+ns.path), nil
}

// insideSocket gives the socket for the workload's namespace: the one that was held, if it belongs
// there, else a new one.
func insideSocket(held, ns *os.File, where string) (*socket, error) {
	if held == nil {
		return openSocket(ns, where)
	}
	s, err := takeUp(held, ns, where)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return openSocket(ns, where)
	}
	return s, nil
}

// takeUp makes a socket of a copy of one that a former daemon had; nil: it belongs to another namespace.
func takeUp(held, ns *os.File, where string) (*socket, error) {
	cookie, err := CookieFile(ns)
	if err != nil {
		return nil, err
	}
	theirs, err := unix.GetsockoptUint64(int(held.Fd()), unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return nil, fmt.Errorf("cookie of the held socket of %s: %w", where, err)
	}
	if theirs != cookie {
		return nil, nil
	}
	fd, err := unix.FcntlInt(held.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("copy the held socket of %s: %w", where, err)
	}
	s := &socket{fd: fd, where: where, seq: 1}
	if err := unix.SetNonblock(fd, true); err != nil { // os.File.Fd makes it block
		return nil, errors.Join(fmt.Errorf("set up the held socket of %s: %w", where, err), s.close())
	}
	// Answers to what the former daemon asked may lie there still.
	s.drain()
	if err := s.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("set up the held socket of %s: %w", where, err), s.close())
	}
	return s, nil
}
