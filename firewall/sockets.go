package firewall

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// diag asks the kernel about sockets (sock_diag(7)) of one namespace.
type diag struct{ socket *socket }

func openDiag(ns *os.File, where string) (*diag, error) {
	s := &socket{fd: -1, where: where, seq: 1}
	err := EnterFile(ns, func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
		s.fd = fd
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open sock_diag socket in %s: %w", where, err)
	}
	return &diag{s}, nil
}

// tcpSocket is one TCP connection. Addresses are unmapped and without zone.
type tcpSocket struct {
	local, remote netip.AddrPort
	family        uint8
	id            [48]byte // struct inet_diag_sockid
}

type tcpSockets struct {
	open      []tcpSocket
	listening map[uint16]bool
}

// TCP states (include/net/tcp_states.h), as bits of a mask.
const (
	tcpTimeWait = 6
	tcpClose    = 7
	tcpListen   = 10
	allStates   = 0xfff &^ (1<<tcpTimeWait | 1<<tcpClose)

	sockDiagByFamily = 20
	sockDestroy      = 21
)

// request is struct inet_diag_req_v2 (uapi/linux/inet_diag.h) behind a netlink header.
func (d *diag) request(kind uint16, flags uint16, family uint8, states uint32, id []byte) []byte {
	d.socket.seq++
	b := binary.NativeEndian.AppendUint32(nil, headerSize+56)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, d.socket.seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, family, unix.IPPROTO_TCP, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, states)
	return append(b, id...)
}

// tcp lists what is connected, being connected or listening.
func (d *diag) tcp() (tcpSockets, error) {
	out := tcpSockets{listening: map[uint16]bool{}}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if err := d.socket.send(d.request(sockDiagByFamily, unix.NLM_F_DUMP, family, allStates, make([]byte, 48))); err != nil {
			return out, fmt.Errorf("%s: list sockets: %w", d.socket.where, err)
		}
		complete := false
		var failed error
		err := d.socket.receive(func(m message) bool {
			switch {
			case m.seq != d.socket.seq:
			case m.kind == unix.NLMSG_DONE:
				complete = true
			case m.kind == unix.NLMSG_ERROR:
				if errno, _ := m.errno(); errno != 0 {
					failed = errno
				}
			case m.kind == sockDiagByFamily && len(m.body) >= 52:
				out.add(m.body)
			}
			return true
		})
		if failed == nil && err == nil && !complete {
			failed = errAgain
		}
		if failed != nil {
			err = failed
		}
		if err != nil {
			return out, fmt.Errorf("%s: list sockets: %w", d.socket.where, err)
		}
	}
	return out, nil
}

// add reads struct inet_diag_msg: family, state, timer, retransmits, and the socket's id.
func (t *tcpSockets) add(b []byte) {
	s := tcpSocket{family: b[0]}
	copy(s.id[:], b[4:52])
	id := s.id[:]
	if b[1] == tcpListen {
		t.listening[binary.BigEndian.Uint16(id)] = true
		return
	}
	addr := func(at int) netip.Addr {
		if s.family == unix.AF_INET {
			return netip.AddrFrom4([4]byte(id[at : at+4]))
		}
		return netip.AddrFrom16([16]byte(id[at : at+16])).Unmap()
	}
	s.local = netip.AddrPortFrom(addr(4), binary.BigEndian.Uint16(id))
	s.remote = netip.AddrPortFrom(addr(20), binary.BigEndian.Uint16(id[2:]))
	t.open = append(t.open, s)
}

// destroy ends a connection (CONFIG_INET_DIAG_DESTROY).
func (d *diag) destroy(s tcpSocket) error {
	if err := d.socket.send(d.request(sockDestroy, unix.NLM_F_ACK, s.family, allStates, s.id[:])); err != nil {
		return err
	}
	err := error(errAgain)
	if e := d.socket.receive(func(m message) bool {
		if m.seq == d.socket.seq && m.kind == unix.NLMSG_ERROR {
			err = nil
			if errno, _ := m.errno(); errno != 0 {
				err = errno
			}
		}
		return true
	}); e != nil {
		return e
	}
	return err
}
