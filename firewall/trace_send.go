package firewall

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// traceSender is the socket that a probe leaves by.
type traceSender struct {
	fd    int
	port  uint16
	probe Probe
}

// openTraceSender opens it in the client's namespace and takes a port.
func openTraceSender(ns *os.File, p Probe) (*traceSender, error) {
	s := &traceSender{fd: -1, probe: p}
	err := EnterFile(ns, func() error {
		domain, kind, proto := unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP
		if p.Server.Is6() {
			domain = unix.AF_INET6
		}
		switch {
		case p.Protocol == identity.UDP:
			kind, proto = unix.SOCK_DGRAM, unix.IPPROTO_UDP
		case p.Protocol.IsICMP():
			kind, proto = unix.SOCK_RAW, int(p.Protocol)
		}
		var err error
		s.fd, err = unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
		if err != nil {
			return err
		}
		return unix.Bind(s.fd, sockaddr(p.Client, 0))
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a socket on %s: %w", p.Client, err), s.close())
	}
	if p.Protocol.IsICMP() {
		var id [2]byte
		_, _ = rand.Read(id[:])
		s.port = binary.BigEndian.Uint16(id[:])
		return s, nil
	}
	name, err := unix.Getsockname(s.fd)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ask for the probe's port: %w", err), s.close())
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		s.port = uint16(a.Port)
	case *unix.SockaddrInet6:
		s.port = uint16(a.Port)
	}
	return s, nil
}

func sockaddr(a netip.Addr, port uint16) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: int(port)}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: int(port)}
}

// send lets the packet go. A connection is closed by a reset, so that nobody waits for it.
func (s *traceSender) send() error {
	p := s.probe
	var err error
	switch {
	case p.Protocol == identity.TCP:
		_ = unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		if err = unix.Connect(s.fd, sockaddr(p.Server, p.Port)); errors.Is(err, unix.EINPROGRESS) {
			err = nil
		}
	case p.Protocol == identity.UDP:
		err = unix.Sendto(s.fd, nil, 0, sockaddr(p.Server, p.Port))
	default:
		err = unix.Sendto(s.fd, echoRequest(p.Server.Is6(), s.port), 0, sockaddr(p.Server, 0))
	}
	if err != nil {
		return fmt.Errorf("send to %s: %w", p.Server, err)
	}
	return nil
}

// echoRequest is RFC 792's, or RFC 4443's, whose checksum the kernel makes.
func echoRequest(v6 bool, id uint16) []byte {
	request, _ := site{v6: v6}.echoTypes()
	b := []byte{request, 0, 0, 0, byte(id >> 8), byte(id), 0, 1}
	if !v6 {
		sum := uint32(request)<<8 + uint32(id) + 1
		sum = sum>>16 + sum&0xffff
		binary.BigEndian.PutUint16(b[2:], ^uint16(sum))
	}
	return b
}

func (s *traceSender) close() error {
	if s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd = -1
	return unix.Close(fd)
}
