package firewall

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// tries is how often the race between an answer and the packet after it is run.
func tries(t testing.TB) int {
	if os.Getenv("BULKHEAD_DNS_TRIES") != "" {
		n := 0
		if _, err := fmt.Sscan(os.Getenv("BULKHEAD_DNS_TRIES"), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	return 100
}

// retransmits is how many segments of a connection were sent again.
func retransmits(t testing.TB, c net.Conn) uint8 {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n uint8
	_ = raw.Control(func(fd uintptr) {
		var info *unix.TCPInfo
		if info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = uint8(info.Total_retrans)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

var web = []policy.NameEntry{
	{Name: "*.example.com", Protocol: identity.TCP, Port: 80, EndPort: 80},
	{Name: "*.example.com", Protocol: identity.UDP, Port: 9000, EndPort: 9009},
}

// TestFirstPacketAfterAnswer: PAINS of others: the first SYN after the answer is dropped because the set
// is written at the same time, and a datagram is lost for good. Here the answer waits for the set.
func TestFirstPacketAfterAnswer(t *testing.T) {
	for _, guarded := range []bool{true, false} {
		t.Run(fmt.Sprintf("guarded=%v", guarded), func(t *testing.T) {
			l := newDNSLab(t, guarded, web...)
			i := 0
			l.zone.serve(func(name string, kind dnsmessage.Type) []dnsmessage.Resource {
				i++ // an address that nobody knows yet
				a := netip.AddrFrom4([4]byte{10, 78, byte(i >> 8), byte(i)})
				if kind == dnsmessage.TypeAAAA {
					a = netip.AddrFrom16([16]byte{0xfd, 0x78, 14: byte(i >> 8), 15: byte(i)})
				}
				return []dnsmessage.Resource{recordA(name, 300, a)}
			})
			l.server.serve(t, 80, 0)
			got := udpAny(t, l.server, 9005)
			l.apply(policy.Enforce)
			l.read()
			lost := 0
			for n := range tries(t) {
				v6 := n%2 == 1
				kind, network := dnsmessage.TypeA, "udp"
				if v6 {
					kind = dnsmessage.TypeAAAA
				}
				if n%5 == 0 {
					network = "tcp"
				}
				c := l.dialDNS(network, v6)
				if n%4 < 2 {
					lost += tcpAfter(t, l, c, kind)
				} else {
					lost += udpAfter(t, l, c, kind, got)
				}
				c.Close()
			}
			if lost > 0 {
				t.Errorf("%d of %d first packets were lost; %+v", lost, tries(t), l.answers.Stats())
			}
			if s := l.answers.Stats(); s.Unseen+s.Failed+s.Malformed+s.Unanswered > 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func tcpAfter(t *testing.T, l *dnsLab, c net.Conn, kind dnsmessage.Type) int {
	addrs := ask(t, c, "www.example.com", kind)
	to, err := l.client.dial("tcp", netip.AddrPortFrom(addrs[0], 80), patience(true))
	if err != nil {
		t.Error(err)
		return 1
	}
	defer to.Close()
	if retransmits(t, to) > 0 {
		return 1
	}
	return 0
}

func udpAfter(t *testing.T, l *dnsLab, c net.Conn, kind dnsmessage.Type, got <-chan string) int {
	var to *net.UDPConn
	err := Enter(l.client.path, func() (err error) {
		to, err = net.ListenUDP("udp", &net.UDPAddr{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	addr := ask(t, c, "www.example.com", kind)[0]
	if _, err := to.WriteToUDPAddrPort([]byte(addr.String()), netip.AddrPortFrom(addr, 9005)); err != nil {
		t.Logf("send to %s: %v", addr, err)
		return 1
	}
	for {
		select {
		case text := <-got:
			if text == addr.String() {
				return 0
			}
		case <-time.After(patience(true)):
			return 1
		}
	}
}

// udpAny hands over what comes to a port at whatever address.
func udpAny(t testing.TB, w *testWorkload, port int) <-chan string {
	t.Helper()
	out := make(chan string, 100)
	err := Enter(w.path, func() error {
		c, err := net.ListenUDP("udp", &net.UDPAddr{Port: port})
		if err != nil {
			return err
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			buf := make([]byte, 200)
			for {
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				out <- string(buf[:n])
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
