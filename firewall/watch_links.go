package firewall

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

type watchLink struct {
	name, kind string
	mac        string // as bytes
	loopback   bool
	master     int32 // the bridge or bond that it is a port of
	program    uint32
}

type watchAddress struct {
	link   int32
	prefix netip.Prefix
}

// xdpProgram finds the program in IFLA_XDP; zero: none. Source: uapi/linux/if_link.h.
func xdpProgram(nested []byte) (id uint32) {
	const attached, anyProgram, driver, generic, hardware = 2, 4, 5, 6, 7
	for kind, v := range decodeAttributes(nested) {
		switch {
		case kind == attached && len(v) > 0 && v[0] != 0 && id == 0:
			id = 1 // some program
		case (kind == anyProgram || kind == driver || kind == generic || kind == hardware) && len(v) == 4:
			id = binary.NativeEndian.Uint32(v)
		}
	}
	return id
}

// link reads struct ifinfomsg and its attributes.
func (p *watchPicture) link(gone bool, body []byte) (out []Event) {
	index := int32(binary.NativeEndian.Uint32(body[4:]))
	now := watchLink{loopback: binary.NativeEndian.Uint32(body[8:])&unix.IFF_LOOPBACK != 0}
	var conf []byte
	for kind, v := range decodeAttributes(body[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			now.name = watchText(v)
		case unix.IFLA_ADDRESS:
			now.mac = string(v)
		case unix.IFLA_MASTER:
			if len(v) == 4 {
				now.master = int32(binary.NativeEndian.Uint32(v))
			}
		case unix.IFLA_XDP:
			now.program = xdpProgram(v)
		case unix.IFLA_AF_SPEC:
			conf = v
		case unix.IFLA_LINKINFO:
			for kind, v := range decodeAttributes(v) {
				if kind == unix.IFLA_INFO_KIND {
					now.kind = watchText(v)
				}
			}
		}
	}
	was, known := p.links[index]
	say := func(format string, args ...any) {
		out = append(out, Event{Time: time.Now(), Kind: EventLink, Index: int(index), What: fmt.Sprintf(format, args...)})
	}
	if gone {
		p.forget(index)
		if known {
			say("interface %s is gone: deleted, or moved to another namespace", now)
		}
		return out
	}
	if !known {
		say("interface %s was added", now)
		out[0].Came = true
	} else {
		if was.name != now.name {
			say("interface %s was renamed to %s", was.name, now.name)
		}
		if was.mac != now.mac {
			say("the MAC address of interface %s was changed from %s to %s", now.name, net.HardwareAddr(was.mac), net.HardwareAddr(now.mac))
		}
		if was.master != now.master && now.master != 0 {
			say("interface %s was made a port of %s", now.name, p.name(now.master))
		}
	}
	if was.program != now.program && now.program != 0 {
		say("an XDP program was put on interface %s", now.name)
	}
	if known || len(p.links) < watchMaxLinks {
		p.links[index] = now
	}
	return append(out, p.sysctls.link(index, now.name, conf)...)
}

// forget drops what is known of an interface that is gone: its index may come again.
func (p *watchPicture) forget(index int32) {
	delete(p.links, index)
	p.sysctls.forget(index)
	for a := range p.addresses {
		if a.link == index {
			delete(p.addresses, a)
		}
	}
	for r := range p.routes {
		if r.link == index {
			delete(p.routes, r)
		}
	}
	for q := range p.qdiscs {
		if q.link == index {
			delete(p.qdiscs, q)
		}
	}
}

// name is an interface's name, or its number where it is not known.
func (p *watchPicture) name(index int32) string {
	if l, known := p.links[index]; known {
		return l.name
	}
	return fmt.Sprintf("interface %d", index)
}

func (k watchLink) String() string {
	if k.kind == "" {
		return k.name
	}
	return k.name + " (" + k.kind + ")"
}

// address reads struct ifaddrmsg and its attributes.
func (p *watchPicture) address(gone bool, body []byte) (Event, bool) {
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
		delete(p.addresses, a)
		return Event{}, false
	}
	if _, known := p.addresses[a]; known || !a.prefix.IsValid() {
		return Event{}, false
	}
	if len(p.addresses) < watchMaxAddresses {
		p.addresses[a] = struct{}{}
	}
	link := p.links[a.link]
	if link.loopback && local.IsLoopback() || local == watchLinkLocal(link.mac) {
		return Event{}, false // the kernel gives these by itself
	}
	return Event{Time: time.Now(), Kind: EventAddress, Index: int(a.link), Addr: local.Unmap(),
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
