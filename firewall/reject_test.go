package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// TestReject: who is denied is told at once, by whichever end denies: TCP by a reset, the rest by an
// error of ICMP. Without a guard ingress tells by ICMP alone. Nothing of it is tracked.
func TestReject(t *testing.T) {
	node := newTestNode(t)
	client, server := node.workload(t), node.workload(t)
	server.serve(t, 80, 53)
	// The kernel's own bound of one error a second and peer is not what is tested (icmp(7)).
	testIn(t, server.path, "sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
	for _, guarded := range []bool{true, false} {
		if !guarded {
			for _, w := range []*testWorkload{client, server} {
				if err := w.ns.Remove(); err != nil {
					t.Fatal(err)
				}
				w.ns = nil
				w.unguarded()
			}
		}
		for _, row := range []struct {
			name           string
			client, server policy.Sides
			reset          bool
		}{
			{"egress", rejecting(both(egress(), ingress())), policy.Sides{}, true},
			{"egress denies", rejecting(denyOut(policy.Sides{}, every(server)...)), policy.Sides{}, true},
			{"ingress", policy.Sides{}, rejecting(both(egress(), ingress())), guarded},
			{"ingress, egress open", policy.Sides{}, rejecting(ingress()), true},
			{"ingress denies", policy.Sides{}, rejecting(denyIn(both(egress(), policy.Sides{}), every(client)...)), guarded},
			{"ingress, client isolated", both(egress(allows(server)...), ingress()), rejecting(both(egress(), ingress())), guarded},
		} {
			t.Run(fmt.Sprintf("guarded=%v/%s", guarded, row.name), func(t *testing.T) {
				client.apply(t, policy.Enforce, row.client)
				server.apply(t, policy.Enforce, row.server)
				for _, v6 := range []bool{false, true} {
					prohibited := unix.EHOSTUNREACH // net/ipv4/icmp.c: icmp_err_convert
					if v6 {
						prohibited = unix.EACCES // net/ipv6/icmp.c: tab_unreach
					}
					refused := prohibited
					if row.reset {
						refused = unix.ECONNREFUSED
					}
					ports := []uint16{80, 81} // 80 listens, 81 does not
					if row.client.Egress.Isolated && len(row.client.Egress.Entries) > 0 {
						ports = ports[:1] // what the client may not ask is not answered by the server
					}
					for _, port := range ports {
						_, err := client.dial("tcp", netip.AddrPortFrom(server.addr(v6), port), patience(true))
						if !errors.Is(err, refused) {
							t.Errorf("%s TCP/%d: %v, want %v", familyName(v6), port, err, refused)
						}
					}
					told := prohibited
					if row.client.Egress.OnDeny == policy.Reject {
						told = unix.EPERM // a datagram's sender is told by the call itself
					}
					if err := client.asksUDP(t, server.addr(v6)); !errors.Is(err, told) {
						t.Errorf("%s UDP: %v, want %v", familyName(v6), err, told)
					}
				}
				for _, w := range []*testWorkload{client, server} {
					if err := w.ns.Check(); err != nil {
						t.Error(err)
					}
					if n := tracked(t, w.path); n != 0 {
						t.Errorf("%d connections are tracked", n)
					}
				}
			})
		}
	}
}

// asksUDP sends a datagram from a connected socket, and gives the error that comes back.
func (w *testWorkload) asksUDP(t testing.TB, to netip.Addr) error {
	t.Helper()
	c, err := w.dial("udp", netip.AddrPortFrom(to, 53), patience(true))
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(deadline(true))
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 10))
	return err
}

// TestRejectIsBounded: a scan gets a bounded number of answers; what is beyond is dropped.
func TestRejectIsBounded(t *testing.T) {
	node := newTestNode(t)
	client, server := node.workload(t), node.workload(t)
	client.apply(t, policy.Enforce, policy.Sides{})
	server.apply(t, policy.Enforce, rejecting(both(egress(), ingress())))
	f := forger{t: t, from: client, to: server, mac: client.ifc.MAC, v4: client.v4, v6: client.v6}
	fd := client.sniffer(t)
	begin := time.Now()
	const scanned = 2000
	for port := range uint16(scanned) {
		testFrame(t, client.path, "eth0", f.syn(4000, port+1))
	}
	resets := countResets(fd, server.v4)
	most := 2*rejectsPerSecond + int(time.Since(begin).Seconds()+1)*rejectsPerSecond
	if resets == 0 || resets > most || resets > scanned*3/4 {
		t.Errorf("%d resets for %d ports, want some and at most %d", resets, scanned, most)
	}
}

// syn is a bare SYN.
func (f forger) syn(sport, dport uint16) []byte {
	ip := f.ip4(layers.IPProtocolTCP)
	s := &layers.TCP{SrcPort: layers.TCPPort(sport), DstPort: layers.TCPPort(dport), SYN: true, Seq: 7, Window: 1000}
	_ = s.SetNetworkLayerForChecksum(ip)
	return f.build(f.ether(layers.EthernetTypeIPv4), ip, s)
}

// countResets counts the resets from an address until nothing more comes.
func countResets(fd int, from netip.Addr) int {
	tv := unix.NsecToTimeval(int64(patience(false)))
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	buf, n := make([]byte, 200), 0
	for {
		got, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n
		}
		if isReset(buf[:got], from) {
			n++
		}
	}
}

func isReset(frame []byte, from netip.Addr) bool {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{NoCopy: true, Lazy: true})
	ip, _ := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	tcp, _ := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	return ip != nil && tcp != nil && tcp.RST && ip.SrcIP.Equal(net.IP(from.AsSlice()))
}

// TestNoOtherResets: the guard lets a reset out only where one is due: to who has just asked in vain,
// once, and without anything in it.
func TestNoOtherResets(t *testing.T) {
	node := newTestNode(t)
	victim, attacker := node.workload(t), node.workload(t)
	victim.apply(t, policy.Enforce, policy.Sides{})
	sides := both(egress(), ingress())
	sides.Ingress.OnDeny = policy.Reject
	attacker.apply(t, policy.Enforce, sides)
	f := forger{t: t, from: attacker, to: victim, mac: attacker.ifc.MAC, v4: attacker.v4, v6: attacker.v6}
	asks := forger{t: t, from: victim, to: attacker, mac: victim.ifc.MAC, v4: victim.v4, v6: victim.v6}
	reset := func(sport, dport uint16, seq uint32, data string) []byte {
		ip := f.ip4(layers.IPProtocolTCP)
		s := &layers.TCP{SrcPort: layers.TCPPort(sport), DstPort: layers.TCPPort(dport), RST: true, ACK: true, Seq: seq, Ack: 8}
		_ = s.SetNetworkLayerForChecksum(ip)
		return f.build(f.ether(layers.EthernetTypeIPv4), ip, s, gopacket.Payload(data))
	}
	// The attacker keeps its own kernel from answering, so that what it forges is the first answer.
	testLoad(t, attacker.path, "table inet quiet {\n chain in {\n type filter hook input priority -300;\n tcp flags syn drop\n }\n}")
	for _, row := range []struct {
		name  string
		asked bool
		frame []byte
		want  int // of two such frames, how many arrive
	}{
		{"nobody asked", false, reset(80, 4000, 0, ""), 0},
		{"once for a question", true, reset(80, 4001, 0, ""), 1},
		{"with data", true, reset(80, 4002, 0, "secret"), 0},
		{"with a sequence number", true, reset(80, 4003, 12345, ""), 0},
		{"from another port", true, reset(81, 4004, 0, ""), 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			fd := victim.sniffer(t)
			if row.asked {
				port := binary.BigEndian.Uint16(row.frame[14+20+2:])
				testFrame(t, victim.path, "eth0", asks.syn(port, 80))
			}
			for range 2 {
				testFrame(t, attacker.path, "eth0", row.frame)
			}
			if n := countResets(fd, attacker.v4); n != row.want {
				t.Errorf("%d resets arrived, want %d", n, row.want)
			}
		})
	}
}

// TestRejectOrDrop changes the manner of a side to and fro: by increments, and in force at once.
func TestRejectOrDrop(t *testing.T) {
	node := newTestNode(t)
	client, server := node.workload(t), node.workload(t)
	server.serve(t, 80, 0)
	server.apply(t, policy.Enforce, policy.Sides{})
	client.apply(t, policy.Enforce, egress())
	to := netip.AddrPortFrom(server.v4, 80)
	for range 3 {
		client.apply(t, policy.Enforce, rejecting(egress()))
		if _, err := client.dial("tcp", to, patience(true)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("Reject: %v", err)
		}
		client.apply(t, policy.Enforce, egress())
		var e net.Error
		if _, err := client.dial("tcp", to, patience(false)); !errors.As(err, &e) || !e.Timeout() {
			t.Errorf("Drop: %v", err)
		}
		client.apply(t, policy.AlertMode, rejecting(egress()))
		if !client.talks("tcp", to, patience(true)) {
			t.Error("mode alert rejects")
		}
	}
}

// every are entries for everything with one peer.
func every(w *testWorkload) []policy.Entry {
	return []policy.Entry{testEntry(w.v4.String(), identity.AnyProtocol, 0, 0), testEntry(w.v6.String(), identity.AnyProtocol, 0, 0)}
}
