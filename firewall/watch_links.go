package firewall

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// What a Watch remembers of a namespace, at most. Beyond that a change is told, perhaps more than
// once, but not remembered.
const (
	watchMaxLinks     = 1024
	watchMaxAddresses = 4096
)

// watchLinks knows the interfaces and addresses of a namespace, so that only what is new is told.
type watchLinks struct {
	links     map[int32]watchLink
	addresses map[watchAddress]struct{}
}

type watchLink struct {
	name, kind string
	mac        string // as bytes
	loopback   bool
}

type watchAddress struct {
	link   int32
	prefix netip.Prefix
}

func newWatchLinks() *watchLinks {
	return &watchLinks{links: make(map[int32]watchLink), addresses: make(map[watchAddress]struct{})}
}

// routineRoute tells of interfaces and addresses.
func (w *Watch) routineRoute(ctx context.Context) error {
	read := func(b []byte) time.Time {
		for m := range kernelMessages(b) {
			if e, ok := w.links.note(m.kind, m.body); ok {
				w.emit(e)
			}
		}
		return time.Time{}
	}
	return w.loop(ctx, w.route, read, func() error {
		w.blind("interfaces and addresses")
		events, err := w.links.resync(w.cfg.Namespace)
		for _, e := range events {
			w.emit(e)
		}
		return err
	})
}

// resync asks the kernel for what is there now and returns what is new since the last time.
func (l *watchLinks) resync(path string) ([]Event, error) {
	conn, err := dialKernel(path, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var events []Event
	for _, kind := range []netlink.HeaderType{unix.RTM_GETLINK, unix.RTM_GETADDR} {
		answer, err := conn.Execute(netlink.Message{
			Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Dump},
			Data:   make([]byte, unix.SizeofIfInfomsg), // of any family; longer than an ifaddrmsg, which is no harm
		})
		if err != nil {
			return nil, fmt.Errorf("list interfaces and addresses: %w", err)
		}
		for _, m := range answer {
			if e, ok := l.note(uint16(m.Header.Type), m.Data); ok {
				events = append(events, e)
			}
		}
	}
	return events, nil
}

// note reads one notification; tell is false where nothing worth an event happened.
func (l *watchLinks) note(kind uint16, body []byte) (e Event, tell bool) {
	switch kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(body) >= unix.SizeofIfInfomsg && body[0] == unix.AF_UNSPEC { // not a bridge's view of its port
			return l.link(kind == unix.RTM_DELLINK, body)
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		if len(body) >= unix.SizeofIfAddrmsg {
			return l.address(kind == unix.RTM_DELADDR, body)
		}
	}
	return e, false
}

// link reads struct ifinfomsg and its attributes.
func (l *watchLinks) link(gone bool, body []byte) (Event, bool) {
	index := int32(binary.NativeEndian.Uint32(body[4:]))
	now := watchLink{loopback: binary.NativeEndian.Uint32(body[8:])&unix.IFF_LOOPBACK != 0}
	for kind, v := range decodeAttributes(body[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			now.name = watchText(v)
		case unix.IFLA_ADDRESS:
			now.mac = string(v)
		case unix.IFLA_LINKINFO:
			for kind, v := range decodeAttributes(v) {
				if kind == unix.IFLA_INFO_KIND {
					now.kind = watchText(v)
				}
			}
		}
	}
	was, known := l.links[index]
	e := Event{Time: time.Now(), Kind: EventLink}
	switch {
	case gone:
		delete(l.links, index)
		for a := range l.addresses {
			if a.link == index {
				delete(l.addresses, a)
			}
		}
		e.What = fmt.Sprintf("interface %s is gone: deleted, or moved to another namespace", now)
		return e, known
	case !known:
		e.What = fmt.Sprintf("interface %s was added", now)
	case was.name != now.name:
		e.What = fmt.Sprintf("interface %s was renamed to %s", was.name, now.name)
	case was.mac != now.mac:
		e.What = fmt.Sprintf("the MAC address of interface %s was changed from %s to %s", now.name,
			net.HardwareAddr(was.mac), net.HardwareAddr(now.mac))
	}
	if known || len(l.links) < watchMaxLinks {
		l.links[index] = now
	}
	return e, e.What != ""
}

func (k watchLink) String() string {
	if k.kind == "" {
		return k.name
	}
	return k.name + " (" + k.kind + ")"
}

// address reads struct ifaddrmsg and its attributes.
func (l *watchLinks) address(gone bool, body []byte) (Event, bool) {
	var local, other netip.Addr
	for kind, v := range decodeAttributes(body[unix.SizeofIfAddrmsg:]) {
		switch kind {
		case unix.IFA_LOCAL: // of a point-to-point link: our end
			local, _ = netip.AddrFromSlice(v)
		case unix.IFA_ADDRESS:
			other, _ = netip.AddrFromSlice(v)
		}
	}
	if !local.IsValid() {
		local = other
	}
	a := watchAddress{int32(binary.NativeEndian.Uint32(body[4:])), netip.PrefixFrom(local, int(body[1]))}
	if gone {
		delete(l.addresses, a)
		return Event{}, false
	}
	if _, known := l.addresses[a]; known || !a.prefix.IsValid() {
		return Event{}, false
	}
	if len(l.addresses) < watchMaxAddresses {
		l.addresses[a] = struct{}{}
	}
	link := l.links[a.link]
	if link.loopback && local.IsLoopback() || local == watchLinkLocal(link.mac) {
		return Event{}, false // the kernel gives these by itself
	}
	return Event{Time: time.Now(), Kind: EventAddress,
		What: fmt.Sprintf("address %s was added to interface %s", a.prefix, link)}, true
}

// watchLinkLocal is the IPv6 address that an interface gets from its MAC (RFC 4291, appendix A).
func watchLinkLocal(mac string) netip.Addr {
	if len(mac) != 6 {
		return netip.Addr{}
	}
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff,
		12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]})
}
