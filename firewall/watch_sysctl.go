package firewall

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Sysctls that change where packets may come from or go to. Of most the kernel tells nobody: it tells
// of forwarding, reverse path filters and proxies (RTM_NEWNETCONF); what interfaces have comes with
// every list of interfaces; what holds for all of a namespace is read from /proc.
var (
	// The place in IFLA_INET_CONF is the number less one (uapi/linux/ip.h).
	watchInterface4 = map[int]string{3: "proxy_arp", 4: "accept_redirects", 5: "secure_redirects", 6: "send_redirects",
		8: "rp_filter", 9: "accept_source_route", 13: "arp_filter", 18: "arp_announce", 19: "arp_ignore", 21: "arp_accept",
		23: "accept_local", 25: "proxy_arp_pvlan", 26: "route_localnet"}
	// The place in IFLA_INET6_CONF is the number (uapi/linux/ipv6.h).
	watchInterface6 = map[int]string{3: "accept_ra", 4: "accept_redirects", 5: "autoconf", 17: "accept_ra_defrtr", 18: "accept_ra_pinfo",
		24: "accept_source_route", 44: "seg6_enabled", 51: "rpl_seg_enabled"}
	// The kernel tells of these. Source: uapi/linux/netconf.h.
	watchTold = map[uint16]string{2: "forwarding", 3: "rp_filter", 4: "mc_forwarding", 5: "proxy", 8: "bc_forwarding"}

	watchFiles = []string{
		"ipv4/conf/all/accept_redirects", "ipv4/conf/all/secure_redirects", "ipv4/conf/all/send_redirects",
		"ipv4/conf/all/accept_source_route", "ipv4/conf/all/arp_filter", "ipv4/conf/all/arp_announce",
		"ipv4/conf/all/arp_ignore", "ipv4/conf/all/arp_accept", "ipv4/conf/all/accept_local",
		"ipv4/conf/all/route_localnet", "ipv4/ip_nonlocal_bind", "ipv6/ip_nonlocal_bind",
		"ipv6/conf/all/accept_source_route", "ipv6/conf/all/seg6_enabled",
	}
)

// watchSysctls is what they were.
type watchSysctls struct {
	told  map[watchTold4]int32
	links map[int32]*[2]watchConf
	all   []string // of watchFiles
}

// watchTold4 names a value that the kernel tells of: a family, an interface (or all, or default), which.
type watchTold4 struct {
	family byte
	link   int32
	which  uint16
}

// watchConf are an interface's values of one family, in the order of the kernel.
type watchConf [64]int32

func newWatchSysctls() watchSysctls {
	return watchSysctls{told: map[watchTold4]int32{}, links: map[int32]*[2]watchConf{}}
}

func sysctlEvent(index int32, name string, was, now any) Event {
	return Event{Time: time.Now(), Kind: EventSysctl, Index: int(max(index, 0)),
		What: fmt.Sprintf("sysctl net.%s was changed from %v to %v", name, was, now)}
}

// netconf reads struct netconfmsg and its attributes: what the kernel tells of.
func (s *watchSysctls) netconf(body []byte, links map[int32]watchLink) (out []Event) {
	const all, byDefault = -1, -2
	family, index := "ipv4", int32(byDefault)
	if body[0] == unix.AF_INET6 {
		family = "ipv6"
	}
	values := map[uint16]int32{}
	for kind, v := range decodeAttributes(body[4:]) {
		if len(v) != 4 {
			continue
		}
		if n := int32(binary.NativeEndian.Uint32(v)); kind == 1 {
			index = n
		} else if watchTold[kind] != "" {
			values[kind] = n
		}
	}
	if index == byDefault { // of interfaces to come, which are told of
		return nil
	}
	link, known := links[index]
	name := link.name
	if index == all {
		name, known = "all", true
	}
	for kind, n := range values {
		key := watchTold4{body[0], index, kind}
		was, had := s.told[key]
		if known || had {
			s.told[key] = n
		}
		if had && was != n {
			what := watchTold[kind]
			if what == "proxy" {
				what = map[string]string{"ipv4": "proxy_arp", "ipv6": "proxy_ndp"}[family]
			}
			out = append(out, sysctlEvent(index, family+".conf."+name+"."+what, was, n))
		}
	}
	return out
}

// link reads IFLA_AF_SPEC: the values of one interface, of both families.
func (s *watchSysctls) link(index int32, name string, spec []byte) (out []Event) {
	now := &[2]watchConf{}
	had := s.links[index]
	for family, v := range decodeAttributes(spec) {
		at, words, prefix, names, shift := 0, uint16(1), "ipv4", watchInterface4, 1
		if family == unix.AF_INET6 {
			at, words, prefix, names, shift = 1, 2, "ipv6", watchInterface6, 0
		} else if family != unix.AF_INET {
			continue
		}
		for kind, v := range decodeAttributes(v) {
			if kind != words {
				continue
			}
			for i := 0; i < len(now[at]) && len(v) >= 4; i, v = i+1, v[4:] {
				now[at][i] = int32(binary.NativeEndian.Uint32(v))
				what := names[i+shift]
				_, told := s.told[watchTold4{byte(family), index, 3}]
				if what == "" || had == nil || had[at][i] == now[at][i] || told && (what == "rp_filter" || what == "proxy_arp") {
					continue
				}
				out = append(out, sysctlEvent(index, prefix+".conf."+name+"."+what, had[at][i], now[at][i]))
			}
		}
	}
	if had != nil || len(s.links) < watchMaxLinks {
		s.links[index] = now
	}
	return out
}

// lookAll reads what holds for all of the namespace, whose thread this must be.
func (s *watchSysctls) lookAll() (out []Event) {
	now := make([]string, len(watchFiles))
	for i, name := range watchFiles {
		now[i] = readSysctl(name)
		if s.all != nil && now[i] != s.all[i] && now[i] != "" {
			out = append(out, sysctlEvent(0, strings.ReplaceAll(name, "/", "."), s.all[i], now[i]))
		}
	}
	s.all = now
	return out
}

// readSysctl gives a value, or nothing where this kernel has none of that name. It is read often, so
// that the runtime's own poller is left out of it.
func readSysctl(name string) string {
	fd, err := unix.Open("/proc/sys/net/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var buf [32]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(buf[:n]))
}

// forget drops an interface that is gone.
func (s *watchSysctls) forget(index int32) {
	delete(s.links, index)
	for k := range s.told {
		if k.link == index {
			delete(s.told, k)
		}
	}
}
