package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// peer is who is at the other end of a connection, as the kernel knows it since connect(2).
type peer struct {
	uid    uint32
	gid    uint32
	pid    int32
	groups []uint32 // supplementary groups
	err    error    // when the kernel would not say; such a peer may nothing
}

type peerKey struct{}

// withPeer is http.Server.ConnContext.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, peerOf(c))
}

func peerOf(c net.Conn) (p peer) {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		p.err = fmt.Errorf("%T has no peer credentials", c)
		return p
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		p.err = err
		return p
	}
	ctlErr := raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			p.err = err
			return
		}
		p.uid, p.gid, p.pid = cred.Uid, cred.Gid, cred.Pid
		p.groups, p.err = peerGroups(fd)
	})
	if ctlErr != nil {
		p.err = ctlErr
	}
	return p
}

// maxGroups is NGROUPS_MAX of linux/limits.h.
const maxGroups = 65536

// peerGroups reads SO_PEERGROUPS (socket(7), since Linux 4.13), which x/sys/unix has no call for.
func peerGroups(fd uintptr) ([]uint32, error) {
	for n := 64; n <= maxGroups; n *= 32 {
		groups := make([]uint32, n)
		size := uint32(n * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch errno {
		case 0:
			return groups[:size/4], nil
		case unix.ERANGE: // more groups than room
		default:
			return nil, errno
		}
	}
	return nil, unix.ERANGE
}

// allowed says who may speak: root, the daemon's own user, and where a group is configured its
// members. What the runtime's plugin says is taken from the first two only: a member may operate
// the firewall, not tell it which namespaces exist.
func (s *Server) allowed(r *http.Request) error {
	p, ok := r.Context().Value(peerKey{}).(peer)
	if !ok || p.err != nil {
		return api.Errorf(api.Denied, "who calls is not known: %v", p.err)
	}
	if p.uid == 0 || p.uid == uint32(os.Geteuid()) {
		return nil
	}
	member := s.gid > 0 && (p.gid == uint32(s.gid) || slices.Contains(p.groups, uint32(s.gid)))
	if member && r.URL.Path != api.PathCNI {
		return nil
	}
	e := api.Errorf(api.Denied, "uid %d may not use this socket", p.uid)
	if member {
		e.Message = fmt.Sprintf("uid %d may not speak for a container runtime", p.uid)
	} else if s.gid > 0 {
		e.Message += fmt.Sprintf("; root and members of group %d may", s.gid)
	} else {
		e.Message += "; root may"
	}
	return e
}
