package firewall

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// testNode is a namespace that plays the node, with a bridge that workloads hang on:
//
//	workload 2 ── eth0 ═ host2 ─┐
//	workload 3 ── eth0 ═ host3 ─┴─ br0 10.77.0.1, fd77::1
type testNode struct {
	path  string
	count int
}

// testWorkload is a namespace on the bridge: 10.77.0.N and fd77::N.
type testWorkload struct {
	t    testing.TB // of the whole test: what outlives a subtest is cleaned up with it
	path string
	node *testNode
	ifc  Interface
	v4   netip.Addr
	v6   netip.Addr
	ns   *Namespace
}

func newTestNode(t testing.TB) *testNode {
	n := &testNode{path: testNamespace(t), count: 1}
	quickIPv6(t, n.path)
	name := filepath.Base(n.path)
	testRun(t, "ip", "-n", name, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
	testRun(t, "ip", "-n", name, "addr", "add", "10.77.0.1/24", "dev", "br0")
	testRun(t, "ip", "-n", name, "addr", "add", "fd77::1/64", "dev", "br0", "nodad")
	testRun(t, "ip", "-n", name, "link", "set", "br0", "up")
	return n
}

// quickIPv6 lets addresses be used at once.
func quickIPv6(t testing.TB, path string) {
	testIn(t, path, "sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
}

func (n *testNode) workload(t testing.TB) *testWorkload {
	t.Helper()
	n.count++
	i := n.count
	w := &testWorkload{t: t, path: testNamespace(t), node: n,
		v4: netip.AddrFrom4([4]byte{10, 77, 0, byte(i)}),
		v6: netip.MustParseAddr(fmt.Sprintf("fd77::%x", i))}
	quickIPv6(t, w.path)
	host, inside := fmt.Sprintf("host%d", i), filepath.Base(w.path)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, byte(i)}
	testRun(t, "ip", "-n", filepath.Base(n.path), "link", "add", host, "type", "veth", "peer", "name", "eth0", "address", mac.String(), "netns", inside)
	testRun(t, "ip", "-n", filepath.Base(n.path), "link", "set", host, "master", "br0", "up")
	testRun(t, "ip", "-n", inside, "addr", "add", w.v4.String()+"/24", "dev", "eth0")
	testRun(t, "ip", "-n", inside, "addr", "add", w.v6.String()+"/64", "dev", "eth0", "nodad")
	testRun(t, "ip", "-n", inside, "link", "set", "eth0", "up")
	testRun(t, "ip", "-n", inside, "route", "add", "default", "via", "10.77.0.1")
	w.ifc = Interface{Name: "eth0", Host: host, MAC: mac, Addrs: []netip.Addr{w.v4, w.v6}}
	return w
}

func (w *testWorkload) addr(v6 bool) netip.Addr {
	if v6 {
		return w.v6
	}
	return w.v4
}

// unguarded makes the workload one whose interface has no end on the host, as far as we know.
func (w *testWorkload) unguarded() { w.ifc.Host = "" }

func (w *testWorkload) open(t testing.TB) *Namespace {
	t.Helper()
	w.ns = testOpen(w.t, Config{NetNS: w.path, Node: w.node.path, Interfaces: []Interface{w.ifc}})
	return w.ns
}

func (w *testWorkload) spec(mode policy.Mode, sides policy.Sides) Spec {
	return Spec{Mode: mode, Sides: sides, Interfaces: []Interface{w.ifc}}
}

// apply brings the workload to a mode with these sides.
func (w *testWorkload) apply(t testing.TB, mode policy.Mode, sides policy.Sides) int {
	t.Helper()
	if w.ns == nil {
		w.open(t)
	}
	n, err := w.ns.Apply(Compile(w.spec(mode, sides)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// egress and ingress are sides of which only one is isolated, with these entries.
func egress(e ...policy.Entry) policy.Sides {
	return policy.Sides{Egress: policy.Side{Isolated: true, Entries: e}}
}

func ingress(e ...policy.Entry) policy.Sides {
	return policy.Sides{Ingress: policy.Side{Isolated: true, Entries: e}}
}

func both(out, in policy.Sides) policy.Sides {
	return policy.Sides{Egress: out.Egress, Ingress: in.Ingress}
}

// allows are entries for every protocol of the probes with one peer.
func allows(w *testWorkload) []policy.Entry {
	return []policy.Entry{
		testEntry(w.v4.String(), identity.TCP, 80, 80), testEntry(w.v6.String(), identity.TCP, 80, 80),
		testEntry(w.v4.String(), identity.UDP, 53, 53), testEntry(w.v6.String(), identity.UDP, 53, 53),
		testEntry(w.v4.String(), identity.ICMP, 8, 8), testEntry(w.v6.String(), identity.ICMPv6, 128, 128),
	}
}

// serve answers on TCP and UDP: everything that comes in goes back.
func (w *testWorkload) serve(t testing.TB, tcp, udp uint16) {
	t.Helper()
	err := Enter(w.path, func() error {
		if tcp != 0 {
			l, err := net.Listen("tcp", fmt.Sprintf(":%d", tcp))
			if err != nil {
				return err
			}
			t.Cleanup(func() { l.Close() })
			go echoTCP(l)
		}
		if udp != 0 {
			// One socket a family: an answer must come from the address that was asked.
			for _, a := range []netip.Addr{w.v4, w.v6} {
				c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, udp)))
				if err != nil {
					return err
				}
				t.Cleanup(func() { c.Close() })
				go echoUDP(c)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func echoTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			buf := make([]byte, 4096)
			for {
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				if _, err := c.Write(buf[:n]); err != nil {
					return
				}
			}
		}()
	}
}

func echoUDP(c *net.UDPConn) {
	buf := make([]byte, 65536)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteToUDPAddrPort(buf[:n], from)
	}
}

// patience is how long a probe waits for an answer: long where there should be one, since the machine
// may be busy, short where there should be none.
func patience(want bool) time.Duration {
	if want {
		return 5 * time.Second
	}
	return 250 * time.Millisecond
}

func deadline(want bool) time.Time { return time.Now().Add(patience(want)) }

// dial connects from inside the workload.
func (w *testWorkload) dial(network string, to netip.AddrPort, patience time.Duration) (net.Conn, error) {
	var c net.Conn
	err := Enter(w.path, func() (err error) {
		c, err = (&net.Dialer{Timeout: patience}).Dial(network, to.String())
		return err
	})
	return c, err
}

// talks says whether what is sent comes back.
func (w *testWorkload) talks(network string, to netip.AddrPort, patience time.Duration) bool {
	c, err := w.dial(network, to, patience)
	if err != nil {
		return false
	}
	defer c.Close()
	return exchange(c, []byte("hello"), patience)
}

func exchange(c net.Conn, what []byte, patience time.Duration) bool {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(what); err != nil {
		return false
	}
	buf := make([]byte, len(what))
	for got := 0; got < len(what); {
		n, err := c.Read(buf[got:])
		if err != nil {
			return false
		}
		got += n
	}
	return string(buf) == string(what)
}

// pings says whether an echo request is answered.
func (w *testWorkload) pings(to netip.Addr, patience time.Duration) bool {
	return w.pingsWith(to, 0, patience)
}

// pingsWith is pings with so many bytes of data.
func (w *testWorkload) pingsWith(to netip.Addr, size int, patience time.Duration) bool {
	domain, proto, request, reply := unix.AF_INET, unix.IPPROTO_ICMP, byte(8), byte(0)
	if to.Is6() {
		domain, proto, request, reply = unix.AF_INET6, unix.IPPROTO_ICMPV6, 128, 129
	}
	answered := false
	_ = Enter(w.path, func() error {
		fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		tv := unix.NsecToTimeval(int64(patience))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return err
		}
		msg := []byte{request, 0, 0, 0, 0x12, 0x34, 0, 1}
		binary.BigEndian.PutUint16(msg[2:], ^(uint16(request)<<8 + 0x1234 + 1))
		msg = append(msg, make([]byte, size)...)
		var sa unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte(to.AsSlice()[:4])}
		if to.Is6() {
			sa = &unix.SockaddrInet6{Addr: to.As16()}
		}
		if err := unix.Sendto(fd, msg, 0, sa); err != nil {
			return err
		}
		buf := make([]byte, 9000)
		for {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return err
			}
			b := buf[:n]
			if !to.Is6() {
				b = b[20:]
			}
			if b[0] == reply {
				answered = true
				return nil
			}
		}
	})
	return answered
}

// probes are the connections of the matrix.
var probes = []struct {
	name string
	try  func(client, server *testWorkload, v6 bool, patience time.Duration) bool
}{
	{"TCP", func(c, s *testWorkload, v6 bool, patience time.Duration) bool {
		return c.talks("tcp", netip.AddrPortFrom(s.addr(v6), 80), patience)
	}},
	{"UDP", func(c, s *testWorkload, v6 bool, patience time.Duration) bool {
		return c.talks("udp", netip.AddrPortFrom(s.addr(v6), 53), patience)
	}},
	{"ICMP", func(c, s *testWorkload, v6 bool, patience time.Duration) bool { return c.pings(s.addr(v6), patience) }},
}

func familyName(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}

func testCommand(argv ...string) *exec.Cmd { return exec.Command(argv[0], argv[1:]...) }
