package attack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/firewall"
)

// TestThreat1: A1, code in a container, connects to what policy denies, by every protocol and family
// and with every trick of the IP layer. It is denied at both ends, and an alert says so (THREATS row 1).
// out_: the attacker's own end denies, and nothing reaches the victim's interface. in_: the client's
// end is open, the victim's denies, and nothing is handed to a socket.
func TestThreat1(t *testing.T) {
	threat(t, 1, slices.Concat(bySocket(false), bySocket(true), byPieces(false), byPieces(true), byHeaders()))
}

// way is one kind of socket and destination.
type way struct {
	name string
	send func(a *attempt, from, to *host) error
}

// bySocket are what any program can do, and for protocols without sockets a raw one. in says that the
// victim's end is tried.
func bySocket(in bool) []trick {
	prefix := "out_"
	if in {
		prefix = "in_"
	}
	var out []trick
	for _, w := range ways() {
		tr := trick{name: prefix + w.name, outsider: in, atSocket: in, alert: alert.DeniedBy}
		tr.run = func(a *attempt) error {
			return firewall.Enter(a.from().path, func() error { return w.send(a, a.from(), a.victim) })
		}
		if w.name[:3] == "tcp" {
			tr.wins = func(a *attempt, _ *host, b []byte) bool { return bytes.Contains(b, a.ports()) }
		}
		out = append(out, tr)
	}
	return out
}

// ports is how a TCP header of this attempt begins: the same odd port at both ends.
func (a *attempt) ports() []byte {
	b := binary.BigEndian.AppendUint16(nil, a.port())
	return append(b, b...)
}

func (a *attempt) port() uint16 { return 20000 + a.number%20000 }

func ways() []way {
	ip := netip.MustParseAddr
	datagrams := func(proto int, size int, to func(*attempt, *host) netip.Addr) func(*attempt, *host, *host) error {
		return func(a *attempt, _, victim *host) error { return a.datagram(proto, to(a, victim), size, nil) }
	}
	fixed := func(s string) func(*attempt, *host) netip.Addr {
		return func(*attempt, *host) netip.Addr { return ip(s) }
	}
	v4 := func(_ *attempt, h *host) netip.Addr { return h.v4 }
	v6 := func(_ *attempt, h *host) netip.Addr { return h.v6 }
	mapped := func(_ *attempt, h *host) netip.Addr { return netip.AddrFrom16(h.v4.As16()) }
	link := func(_ *attempt, h *host) netip.Addr { return h.link }
	return []way{
		{"tcp4", func(a *attempt, _, v *host) error { return a.connect(v.v4) }},
		{"tcp6", func(a *attempt, _, v *host) error { return a.connect(v.v6) }},
		{"tcp_mapped", func(a *attempt, _, v *host) error { return a.connect(mapped(a, v)) }},
		{"tcp_link_local", func(a *attempt, _, v *host) error { return a.connect(v.link) }},
		{"udp4", datagrams(unix.IPPROTO_UDP, 0, v4)},
		{"udp6", datagrams(unix.IPPROTO_UDP, 0, v6)},
		{"udp_mapped", datagrams(unix.IPPROTO_UDP, 0, mapped)},
		{"udp_link_local", datagrams(unix.IPPROTO_UDP, 0, link)},
		{"udp4_in_fragments", datagrams(unix.IPPROTO_UDP, 5000, v4)},
		{"udp6_in_fragments", datagrams(unix.IPPROTO_UDP, 5000, v6)},
		{"udp_broadcast", datagrams(unix.IPPROTO_UDP, 0, fixed("255.255.255.255"))},
		{"udp_multicast4", datagrams(unix.IPPROTO_UDP, 0, fixed("224.0.0.1"))},
		{"udp_multicast6", datagrams(unix.IPPROTO_UDP, 0, func(*attempt, *host) netip.Addr { return allNodes })},
		{"udp_with_options", func(a *attempt, _, v *host) error {
			return a.datagram(unix.IPPROTO_UDP, v.v4, 0, []byte{7, 7, 4, 0, 0, 0, 0, 0}) // record route (RFC 791, 3.1)
		}},
		{"icmp_echo", datagrams(unix.IPPROTO_ICMP, 0, v4)},
		{"icmpv6_echo", datagrams(unix.IPPROTO_ICMPV6, 0, v6)},
		{"icmp_echo_in_fragments", datagrams(unix.IPPROTO_ICMP, 5000, v4)},
		{"icmpv6_echo_in_fragments", datagrams(unix.IPPROTO_ICMPV6, 5000, v6)},
		{"icmp_echo_broadcast", datagrams(unix.IPPROTO_ICMP, 0, fixed("255.255.255.255"))},
		{"sctp4", datagrams(protoSCTP, 0, v4)},
		{"sctp6", datagrams(protoSCTP, 0, v6)},
		{"protocol_253", datagrams(253, 0, v4)},
		{"protocol_253_over_ipv6", datagrams(253, 0, v6)},
		{"udplite4", datagrams(136, 0, v4)},
		{"fast_open4", func(a *attempt, _, v *host) error { return a.fastOpen(v.v4) }},
		{"fast_open6", func(a *attempt, _, v *host) error { return a.fastOpen(v.v6) }},
	}
}

// sockaddr is an address for a socket of the family that it says, also an IPv4-mapped one.
func sockaddr(h *attempt, to netip.Addr, port uint16) (int, unix.Sockaddr, error) {
	if to.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(port), Addr: to.As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: int(port), Addr: to.As16()}
	if to.IsLinkLocalUnicast() || to.IsMulticast() {
		index, err := ifindex(h.from().device)
		if err != nil {
			return 0, nil, err
		}
		sa.ZoneId = index
	}
	return unix.AF_INET6, sa, nil
}

// stopped says whether an errno is how the namespace's own rules answer. Without a firewall none is.
func (a *attempt) stopped(err error) bool { return a.state != bare && errors.Is(err, unix.EPERM) }

// connect begins a TCP connection from the calling thread's namespace. Its SYN leaves at once.
func (a *attempt) connect(to netip.Addr) error {
	family, sa, err := sockaddr(a, to, a.port())
	if err != nil {
		return err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var own unix.Sockaddr = &unix.SockaddrInet4{Port: int(a.port())}
	if family == unix.AF_INET6 {
		own = &unix.SockaddrInet6{Port: int(a.port())}
	}
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Bind(fd, own))
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, sa); err != nil && !errors.Is(err, unix.EINPROGRESS) && !a.stopped(err) {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

// datagram sends one packet of a protocol, with the token at its begin and end. UDP goes through its own
// sockets, others through raw ones.
func (a *attempt) datagram(proto int, to netip.Addr, size int, options []byte) error {
	family, sa, err := sockaddr(a, to, 53)
	if err != nil {
		return err
	}
	kind, data := unix.SOCK_RAW, append([]byte{}, a.token...)
	if size > 0 {
		data = append(append(data, make([]byte, size)...), a.token...)
	}
	switch proto {
	case unix.IPPROTO_UDP:
		kind = unix.SOCK_DGRAM
	case unix.IPPROTO_ICMP:
		data = icmpHead(a.from().v4, to, 8, 0, [4]byte{1, 2, 0, 1}, data)
	case unix.IPPROTO_ICMPV6:
		data = icmpHead(a.from().v6, to, 128, 0, [4]byte{1, 2, 0, 1}, data)
	case protoSCTP:
		data = append([]byte{0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20}, data...)
	case 136:
		data = append([]byte{0x9c, 0x40, 0, 80, 0, 8, 0, 0}, data...)
	}
	if sa6, ok := sa.(*unix.SockaddrInet6); ok && kind == unix.SOCK_RAW {
		sa6.Port = 0
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
		unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, a.from().device))
	if len(options) > 0 {
		err = errors.Join(err, unix.SetsockoptString(fd, unix.IPPROTO_IP, unix.IP_OPTIONS, string(options)))
	}
	if err != nil {
		return err
	}
	if err := unix.Sendto(fd, data, 0, sa); err != nil && !a.stopped(err) {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// fastOpen sends data in a SYN (RFC 7413), without waiting for a cookie.
func (a *attempt) fastOpen(to netip.Addr) error {
	// 1: clients may; 4: without a cookie.
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_fastopen", []byte("5"), 0); err != nil {
		return err
	}
	family, sa, err := sockaddr(a, to, 80)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, a.token, unix.MSG_FASTOPEN, sa); err != nil && !errors.Is(err, unix.EINPROGRESS) && !a.stopped(err) {
		return fmt.Errorf("fast open: %w", err)
	}
	return nil
}
