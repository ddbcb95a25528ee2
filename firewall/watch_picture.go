package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// What a Watch remembers of a namespace, at most. Beyond that a change is told, perhaps more than
// once, but not remembered.
const (
	watchMaxLinks     = 1024
	watchMaxAddresses = 4096
	watchMaxRoutes    = 4096
	watchMaxQdiscs    = 1024
)

// watchPicture is what is known of a namespace's interfaces, addresses, routes, traffic control and
// sysctls, so that only what is new is told.
type watchPicture struct {
	links     map[int32]watchLink
	addresses map[watchAddress]struct{}
	routes    map[watchRoute]struct{}
	rules     map[string]struct{}
	qdiscs    map[watchQdisc]struct{}
	sysctls   watchSysctls

	drawn bool // once; until then nothing is news
}

func newWatchPicture() *watchPicture {
	return &watchPicture{links: map[int32]watchLink{}, addresses: map[watchAddress]struct{}{}, routes: map[watchRoute]struct{}{},
		rules: map[string]struct{}{}, qdiscs: map[watchQdisc]struct{}{}, sysctls: newWatchSysctls()}
}

// watchDumps are the lists that make a picture, each with the length of its header and the family that
// it begins with. Their order is that in which one relies on another.
var watchDumps = []struct {
	kind   uint16
	header int
	family byte
}{
	{unix.RTM_GETLINK, unix.SizeofIfInfomsg, unix.AF_UNSPEC},
	{unix.RTM_GETADDR, unix.SizeofIfAddrmsg, unix.AF_UNSPEC},
	{unix.RTM_GETROUTE, unix.SizeofRtMsg, unix.AF_INET},
	{unix.RTM_GETROUTE, unix.SizeofRtMsg, unix.AF_INET6},
	{unix.RTM_GETRULE, unix.SizeofRtMsg, unix.AF_INET},
	{unix.RTM_GETRULE, unix.SizeofRtMsg, unix.AF_INET6},
	{unix.RTM_GETQDISC, sizeofTcMsg, unix.AF_UNSPEC},
	{unix.RTM_GETNETCONF, 4, unix.AF_INET},
	{unix.RTM_GETNETCONF, 4, unix.AF_INET6},
}

// look asks the kernel for what is there now and returns what is new since the last time.
func (p *watchPicture) look(ns *os.File) (events []Event, err error) {
	fd := -1
	err = EnterFile(ns, func() (err error) {
		if fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE); err != nil {
			return err
		}
		events = p.sysctls.lookAll()
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	defer unix.Close(fd)
	for seq, d := range watchDumps {
		for try := 1; ; try++ {
			err = routeDump(fd, d.kind, d.header, d.family, uint32(10*seq+try), func(m kernelMessage) {
				events = append(events, p.note(m.kind, m.body)...)
			})
			if !errors.Is(err, unix.EINTR) || try == applyTries {
				break
			}
		}
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EAFNOSUPPORT) {
			return events, fmt.Errorf("list interfaces, addresses and routes: %w", err)
		}
	}
	if !p.drawn {
		p.drawn, events = true, nil
	}
	return events, nil
}

// routeDump asks rtnetlink for a list. The kernel makes it while it is being read: nothing waits.
// EINTR says that it changed meanwhile.
func routeDump(fd int, kind uint16, header int, family byte, seq uint32, f func(kernelMessage)) error {
	req := make([]byte, unix.NLMSG_HDRLEN+header)
	binary.NativeEndian.PutUint32(req, uint32(len(req)))
	binary.NativeEndian.PutUint16(req[4:], kind)
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	binary.NativeEndian.PutUint32(req[8:], seq)
	req[unix.NLMSG_HDRLEN] = family
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	room := receiveRoom.Get().(*[]byte)
	defer receiveRoom.Put(room)
	changed := false
	for {
		b, err := readKernel(fd, *room)
		if err != nil {
			return err
		}
		if len(b) == 0 {
			return unix.EINTR // its end was lost
		}
		changed = changed || binary.NativeEndian.Uint16(b[6:])&unix.NLM_F_DUMP_INTR != 0
		for m := range kernelMessages(b) {
			switch {
			case m.seq != seq:
			case m.kind == unix.NLMSG_ERROR && len(m.body) >= 4:
				if errno := -int32(binary.NativeEndian.Uint32(m.body)); errno != 0 {
					return unix.Errno(errno)
				}
				return nil
			case m.kind == unix.NLMSG_DONE:
				if changed {
					return unix.EINTR
				}
				return nil
			default:
				f(m)
			}
		}
	}
}

// note reads one notification and gives what is worth an event: mostly nothing.
func (p *watchPicture) note(kind uint16, body []byte) []Event {
	one := func(e Event, tell bool) []Event {
		if !tell {
			return nil
		}
		return []Event{e}
	}
	switch kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(body) >= unix.SizeofIfInfomsg && body[0] == unix.AF_UNSPEC { // not a bridge's view of its port
			return p.link(kind == unix.RTM_DELLINK, body)
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		if len(body) >= unix.SizeofIfAddrmsg {
			return one(p.address(kind == unix.RTM_DELADDR, body))
		}
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if len(body) >= unix.SizeofRtMsg {
			return one(p.route(kind == unix.RTM_DELROUTE, body))
		}
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		if len(body) >= unix.SizeofRtMsg {
			return one(p.rule(kind == unix.RTM_DELRULE, body))
		}
	case unix.RTM_NEWQDISC, unix.RTM_DELQDISC, unix.RTM_NEWTFILTER:
		if len(body) >= sizeofTcMsg {
			return one(p.traffic(kind, body))
		}
	case unix.RTM_NEWNETCONF:
		if len(body) >= 4 {
			return p.sysctls.netconf(body, p.links)
		}
	}
	return nil
}
