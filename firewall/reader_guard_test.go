package firewall

import (
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

func TestReaderGuardFrames(t *testing.T) {
	node, pod := testNamespace(t), testNamespace(t)
	testRun(t, "ip", "-n", filepath.Base(node), "link", "add", "vhost", "type", "veth", "peer", "name", "eth0", "netns", filepath.Base(pod))
	testRun(t, "ip", "-n", filepath.Base(node), "link", "set", "vhost", "up")
	testRun(t, "ip", "-n", filepath.Base(pod), "link", "set", "eth0", "address", "02:00:00:00:00:05", "up")
	testLoad(t, node, `
table netdev bulkhead-vhost {
	chain ingress {
		type filter hook ingress device vhost priority filter; policy drop;
		ether saddr != 02:00:00:00:00:05 log prefix "bh spoof" group 4711 snaplen 128 drop
		arp saddr ip != 10.1.0.5 log prefix "bh spoof" group 4711 snaplen 128 drop
		log prefix "bh raw" group 4711 snaplen 128
	}
}`)
	r, err := NewReader(ReaderConfig{Namespace: node})
	if err != nil {
		t.Fatal(err)
	}
	records := testRecords(t, r)
	ifindex, err := strconv.Atoi(regexp.MustCompile(`^\d+`).FindString(testIn(t, node, "ip", "-o", "link", "show", "vhost")))
	if err != nil {
		t.Fatal(err)
	}

	ip4 := testPacket(t, testIPv4(6), testSYN())
	ip6 := testPacket(t, testIPv6(6), testSYN())
	arp := []byte{0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 5, 10, 1, 0, 9, 0, 0, 0, 0, 0, 0, 10, 1, 0, 1}
	own, foreign := net.HardwareAddr{2, 0, 0, 0, 0, 5}, net.HardwareAddr{2, 0, 0, 0, 0, 6}
	for _, c := range []struct {
		name          string
		mac           net.HardwareAddr
		etherType     uint16
		payload       []byte
		event         flow.Event
		client        string
		protocol      identity.Protocol
		port          uint16
		wantEtherType uint16
	}{
		{"another's MAC", foreign, 0x0800, ip4, flow.Spoof, "10.1.0.5", identity.TCP, 80, 0x0800},
		{"another's address in ARP", own, 0x0806, arp, flow.Spoof, "10.1.0.9", 0, 0, 0x0806},
		{"IPv4 round the rules", own, 0x0800, ip4, flow.Raw, "10.1.0.5", identity.TCP, 80, 0x0800},
		{"IPv6 round the rules", own, 0x86dd, ip6, flow.Raw, "fd00::5", identity.TCP, 80, 0x86dd},
		{"LLDP", own, 0x88cc, make([]byte, 46), flow.Raw, "", 0, 0, 0x88cc},
		// The kernel takes the tag off before it asks the guard: what is left is the frame inside.
		{"IPv4 in a VLAN tag", own, 0x8100, append([]byte{0, 5, 8, 0}, ip4...), flow.Raw, "10.1.0.5", identity.TCP, 80, 0x0800},
	} {
		t.Run(c.name, func(t *testing.T) {
			frame := append(append(append([]byte{2, 0, 0, 0, 0, 1}, c.mac...), byte(c.etherType>>8), byte(c.etherType)), c.payload...)
			testFrame(t, pod, "eth0", frame)
			got := testNextFrom(t, records, c.wantEtherType, c.event)
			var client netip.Addr
			if c.client != "" {
				client = netip.MustParseAddr(c.client)
			}
			if got.Client != client || got.Protocol != c.protocol || got.Port != c.port || got.ifindex != ifindex ||
				got.Sensor != flow.AtGuard || got.Verdict != policy.Deny || string(got.SourceMAC[:]) != string(c.mac) {
				t.Errorf("got %+v, ifindex %d want %d", got.Record, got.ifindex, ifindex)
			}
		})
	}
	if s := r.Stats(); s.Malformed != 0 || s.Foreign != 0 {
		t.Errorf("stats %+v", s)
	}
}

// An interface without a host's end has its guard inside, which hands over whole frames.
func TestReaderGuardInside(t *testing.T) {
	node, pod := testNamespace(t), testNamespace(t)
	testRun(t, "ip", "-n", filepath.Base(node), "link", "add", "vhost", "up", "type", "veth", "peer", "name", "eth0", "netns", filepath.Base(pod))
	testRun(t, "ip", "-n", filepath.Base(pod), "link", "set", "eth0", "up")
	testLoad(t, pod, `
table netdev bulkhead-eth0 {
	chain egress {
		type filter hook egress device eth0 priority filter; policy drop;
		log prefix "bh raw" group 4711 snaplen 128
	}
}`)
	r, err := NewReader(ReaderConfig{Namespace: pod, Workload: "cart"})
	if err != nil {
		t.Fatal(err)
	}
	records := testRecords(t, r)
	mac := []byte{2, 0, 0, 0, 0, 9}
	testFrame(t, pod, "eth0", append(append([]byte{2, 0, 0, 0, 0, 1}, append(mac, 0x86, 0xdd)...), testPacket(t, testIPv6(6), testSYN())...))
	got := testNextFrom(t, records, 0x86dd, flow.Raw)
	if got.Client != decode6a || got.Port != 80 || string(got.SourceMAC[:]) != string(mac) || got.Workload != "cart" || got.ifindex != 0 {
		t.Errorf("%+v", got)
	}
}

// testNextFrom skips what the namespace itself sends (MLD, router solicitations).
func testNextFrom(t testing.TB, records <-chan testRecord, etherType uint16, event flow.Event) testRecord {
	t.Helper()
	for {
		r := testNext(t, records)
		if r.Protocol != identity.ICMPv6 && r.Protocol != 0 || r.EtherType != 0x86dd {
			if r.EtherType != etherType || r.Event != event {
				t.Errorf("unexpected %+v", r.Record)
			}
			return r
		}
	}
}

// testFrame sends one frame through AF_PACKET.
func testFrame(t testing.TB, path, device string, frame []byte) {
	t.Helper()
	err := Enter(path, func() error {
		ifi, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		err = unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifi.Index, Halen: 6})
		if errors.Is(err, unix.ENOBUFS) {
			err = nil // a guard inside dropped it
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
