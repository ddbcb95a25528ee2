package firewall

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// watchRoute is what matters of a route: where it leads.
type watchRoute struct {
	table uint32
	to    netip.Prefix
	via   netip.Addr // not valid: none, or several
	link  int32
}

// route reads struct rtmsg and its attributes. What follows from an address by itself is no news: the
// address is told.
func (p *watchPicture) route(gone bool, body []byte) (Event, bool) {
	if body[0] != unix.AF_INET && body[0] != unix.AF_INET6 {
		return Event{}, false
	}
	const flagsAt, cloned = 8, 0x200 // RTM_F_CLONED: a cache's entry
	if binary.NativeEndian.Uint32(body[flagsAt:])&cloned != 0 {
		return Event{}, false
	}
	r := watchRoute{table: uint32(body[4])}
	to := netip.IPv4Unspecified()
	if body[0] == unix.AF_INET6 {
		to = netip.IPv6Unspecified()
	}
	for kind, v := range decodeAttributes(body[unix.SizeofRtMsg:]) {
		switch {
		case kind == unix.RTA_DST:
			if a, ok := netip.AddrFromSlice(v); ok {
				to = a
			}
		case kind == unix.RTA_GATEWAY:
			r.via, _ = netip.AddrFromSlice(v)
		case kind == unix.RTA_OIF && len(v) == 4:
			r.link = int32(binary.NativeEndian.Uint32(v))
		case kind == unix.RTA_TABLE && len(v) == 4:
			r.table = binary.NativeEndian.Uint32(v)
		}
	}
	r.to = netip.PrefixFrom(to, int(body[1]))
	if gone {
		delete(p.routes, r)
		return Event{}, false
	}
	if _, known := p.routes[r]; known || p.follows(r, body[7], body[5]) {
		return Event{}, false
	}
	if len(p.routes) < watchMaxRoutes {
		p.routes[r] = struct{}{}
	}
	e := Event{Time: time.Now(), Kind: EventRoute, Index: int(r.link)}
	e.What = fmt.Sprintf("a route to %s", r.to)
	if r.to.Bits() == 0 {
		e.What = "a default route"
	}
	if r.via.IsValid() {
		e.What += " via " + r.via.String()
	}
	if r.link != 0 {
		e.What += " on interface " + p.name(r.link)
	}
	if r.table != unix.RT_TABLE_MAIN && r.table != unix.RT_TABLE_LOCAL {
		e.What += fmt.Sprintf(" (table %d)", r.table)
	}
	e.What += " was added"
	return e, true
}

// follows says whether a route is none of anybody's making: to an address of the namespace's own, to
// the network of one, to multicast and link-local destinations, or a router's own advertisement.
func (p *watchPicture) follows(r watchRoute, kind, protocol byte) bool {
	switch kind {
	case unix.RTN_LOCAL, unix.RTN_BROADCAST, unix.RTN_ANYCAST, unix.RTN_MULTICAST:
		return r.table == unix.RT_TABLE_LOCAL && protocol == unix.RTPROT_KERNEL
	}
	if r.via.IsValid() {
		return protocol == unix.RTPROT_RA && r.via.IsLinkLocalUnicast()
	}
	if protocol == unix.RTPROT_KERNEL && r.to.Bits() > 0 {
		return true // of an address that is told right after it
	}
	if r.to.Addr().IsMulticast() || r.to.Addr().IsLinkLocalUnicast() && r.to.Addr().Is6() {
		return true
	}
	for a := range p.addresses {
		if a.link == r.link && a.prefix.Masked() == r.to {
			return true
		}
	}
	return false
}

// rule reads struct fib_rule_hdr and its attributes.
func (p *watchPicture) rule(gone bool, body []byte) (Event, bool) {
	const fraPriority, fraTable = 6, 15 // uapi/linux/fib_rules.h
	priority, table := uint32(0), uint32(body[4])
	for kind, v := range decodeAttributes(body[unix.SizeofRtMsg:]) {
		switch {
		case kind == fraPriority && len(v) == 4:
			priority = binary.NativeEndian.Uint32(v)
		case kind == fraTable && len(v) == 4:
			table = binary.NativeEndian.Uint32(v)
		}
	}
	key := string(body)
	if gone {
		delete(p.rules, key)
		return Event{}, false
	}
	if _, known := p.rules[key]; known {
		return Event{}, false
	}
	if len(p.rules) < watchMaxRoutes && len(key) <= 256 {
		p.rules[key] = struct{}{}
	}
	return Event{Time: time.Now(), Kind: EventRoute,
		What: fmt.Sprintf("a rule of routing was added (priority %d, table %d)", priority, table)}, true
}
