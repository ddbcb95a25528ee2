package firewall

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// everything of a peer, by its addresses.
func everything(w *testWorkload) []policy.Entry {
	return []policy.Entry{testEntry(w.v4.String(), 0, 0, 0), testEntry(w.v6.String(), 0, 0, 0)}
}

// allBlocks are the blocks of every test workload.
func allBlocks() []policy.Entry {
	return []policy.Entry{testEntry("10.77.0.0/24", 0, 0, 0), testEntry("fd77::/64", 0, 0, 0)}
}

// denyRanges deny the probes by ranges.
func denyRanges() []policy.Entry {
	return []policy.Entry{
		testEntry("10.77.0.0/24", identity.TCP, 70, 90), testEntry("fd77::/64", identity.TCP, 70, 90),
		testEntry("10.77.0.0/24", identity.UDP, 0, 65535), testEntry("fd77::/64", identity.UDP, 0, 65535),
		testEntry("10.77.0.0/24", identity.ICMP, 8, 8), testEntry("fd77::/64", identity.ICMPv6, 128, 128),
	}
}

// protocolRange is every port of some protocols, of every test workload.
func protocolRange(from, to identity.Protocol) []policy.Entry {
	out := allBlocks()
	for i := range out {
		out[i].Protocol, out[i].EndProtocol, out[i].EndPort = from, to, 65535
	}
	return out
}

func denyOut(s policy.Sides, e ...policy.Entry) policy.Sides {
	s.Egress.Denied = e
	return s
}

func denyIn(s policy.Sides, e ...policy.Entry) policy.Sides {
	s.Ingress.Denied = e
	return s
}

// eachGuarded runs f with workloads that have a guard and without.
func eachGuarded(t *testing.T, workloads []*testWorkload, f func(t *testing.T)) {
	for _, guarded := range []bool{true, false} {
		if !guarded {
			for _, w := range workloads {
				if w.ns != nil {
					if err := w.ns.Remove(); err != nil {
						t.Fatal(err)
					}
					w.ns = nil
				}
				w.unguarded()
			}
		}
		t.Run(fmt.Sprintf("guarded=%v", guarded), f)
	}
}

// TestDenyVerdicts sends real packets of every kind from client to server.
func TestDenyVerdicts(t *testing.T) {
	node := newTestNode(t)
	client, server := node.workload(t), node.workload(t)
	server.serve(t, 80, 53)
	open := policy.Sides{}
	other := []policy.Entry{testEntry("10.77.0.99", 0, 0, 0), testEntry("fd77::99", 0, 0, 0), testEntry("10.78.0.0/16", 0, 0, 0),
		testEntry(server.v4.String(), identity.TCP, 81, 81), testEntry(server.v6.String(), identity.UDP, 80, 80)}
	closed := both(egress(), ingress())
	rows := []struct {
		name           string
		client, server policy.Sides
		want           bool
	}{
		{"open, denies others", denyOut(open, other...), denyIn(open, other...), true},
		{"open, denies ports", denyOut(open, allows(server)...), open, false},
		{"open, denies the peer", denyOut(open, everything(server)...), open, false},
		{"open, denies a block", denyOut(open, allBlocks()...), open, false},
		{"open, denies ranges", denyOut(open, denyRanges()...), open, false},
		{"open, denies a range of protocols", denyOut(open, protocolRange(1, 58)...), open, false},
		{"open, denies other protocols", denyOut(open, append(protocolRange(2, 5), protocolRange(18, 57)...)...), open, true},
		{"allows a range of protocols", both(egress(protocolRange(1, 58)...), ingress()), open, true},
		{"allows other protocols", egress(append(protocolRange(2, 5), protocolRange(18, 57)...)...), open, false},
		{"server's range of protocols", open, both(egress(), ingress(protocolRange(1, 58)...)), true},
		{"block with holes", denyOut(egress(allBlocks()...), allows(server)...), open, false},
		{"block without the peer", denyOut(egress(allBlocks()...), everything(server)...), open, false},
		{"block in a block", denyOut(egress(allBlocks()...), denyRanges()...), open, false},
		{"exact and denied", denyOut(egress(allows(server)...), allows(server)...), open, false},
		{"exact, the peer denied", denyOut(egress(allows(server)...), everything(server)...), open, false},
		{"exact, others denied", denyOut(egress(allows(server)...), other...), open, true},
		{"server open, denies ports", open, denyIn(open, allows(client)...), false},
		{"server open, denies the peer", open, denyIn(open, everything(client)...), false},
		{"server open, denies ranges", open, denyIn(open, denyRanges()...), false},
		{"server's block with holes", open, denyIn(ingress(allBlocks()...), allows(client)...), false},
		{"server's block without the peer", open, denyIn(ingress(allBlocks()...), everything(client)...), false},
		{"server exact and denied", open, denyIn(ingress(allows(client)...), allows(client)...), false},
		{"server may not dial the client: open", open, denyOut(open, everything(client)...), true},
		{"server may not dial anybody: open", open, denyOut(open, allBlocks()...), true},
		{"server may not dial the client: exact", open, denyOut(ingress(allows(client)...), everything(client)...), true},
		{"server may not dial the client: every port", open, denyOut(ingress(everything(client)...), everything(client)...), true},
		{"server may not dial the client: block", open, denyOut(ingress(allBlocks()...), allBlocks()...), true},
		{"server closed but for a block, may not dial", open, denyOut(both(egress(allBlocks()...), ingress(allBlocks()...)), everything(client)...), true},
		{"client is not to be dialed by the server", denyIn(open, everything(server)...), open, true},
		{"client is not to be dialed, and lists", denyIn(both(egress(allows(server)...), open), allBlocks()...), open, true},
		{"neither may dial the other way", denyIn(open, everything(server)...), denyOut(open, everything(client)...), true},
		{"denied and listed nowhere", denyOut(closed, everything(server)...), open, false},
	}
	eachGuarded(t, []*testWorkload{client, server}, func(t *testing.T) {
		for _, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				client.apply(t, policy.Enforce, row.client)
				server.apply(t, policy.Enforce, row.server)
				tryAll(t, client, server, row.want)
				for _, w := range []*testWorkload{client, server} {
					if err := w.ns.Check(); err != nil {
						t.Error(err)
					}
				}
			})
		}
	})
}

// tryAll sends every probe at the same time.
func tryAll(t testing.TB, client, server *testWorkload, want bool) {
	t.Helper()
	var all sync.WaitGroup
	for _, v6 := range []bool{false, true} {
		for _, p := range probes {
			all.Add(1)
			go func() {
				defer all.Done()
				if got := p.try(client, server, v6, patience(want)); got != want {
					t.Errorf("%s %s: answered %v, want %v", familyName(v6), p.name, got, want)
				}
			}()
		}
	}
	all.Wait()
}

// TestDenyAlerts: in alert mode what a deny would stop passes and is told.
func TestDenyAlerts(t *testing.T) {
	node := newTestNode(t)
	client, server := node.workload(t), node.workload(t)
	server.serve(t, 80, 53)
	server.apply(t, policy.AlertMode, denyIn(policy.Sides{}, testEntry(client.v4.String(), 0, 0, 0), testEntry(client.v6.String(), identity.TCP, 80, 80)))
	r, err := NewReader(ReaderConfig{Namespace: server.path, Workload: "server"})
	if err != nil {
		t.Fatal(err)
	}
	records := testRecords(t, r)
	for range 2 {
		for _, v6 := range []bool{false, true} {
			for _, p := range probes {
				if !p.try(client, server, v6, patience(true)) {
					t.Errorf("%s %s: no answer in alert mode", familyName(v6), p.name)
				}
			}
		}
	}
	got := map[string]int{}
	for range 6 {
		rec := testNext(t, records)
		if rec.Event != flow.Birth {
			t.Errorf("event %d; want a birth: %+v", rec.Event, rec)
		}
		got[fmt.Sprintf("%s %s %s %d %s", rec.Direction, rec.Client, rec.Protocol, rec.Port, rec.Verdict)]++
	}
	for _, want := range []string{
		"ingress 10.77.0.2 TCP 80 alert", "ingress 10.77.0.2 UDP 53 alert", "ingress 10.77.0.2 ICMP 8 alert",
		"ingress fd77::2 TCP 80 alert", "ingress fd77::2 UDP 53 allow", "ingress fd77::2 ICMPv6 128 allow",
	} {
		if got[want] != 1 {
			t.Errorf("%q told %d times, want once; all: %v", want, got[want], got)
		}
	}
}

// fragment is a later fragment of a UDP datagram.
func (f forger) fragment() []byte {
	ip := f.ip4(layers.IPProtocolUDP)
	ip.FragOffset = 64
	return f.build(f.ether(layers.EthernetTypeIPv4), ip, gopacket.Payload(append(make([]byte, 64), marker...)))
}

// TestDenyFrames sends frames past the namespace's own rules.
func TestDenyFrames(t *testing.T) {
	node := newTestNode(t)
	attacker, victim := node.workload(t), node.workload(t)
	ports := []policy.Entry{testEntry(victim.v4.String(), identity.UDP, 99, 99), testEntry(victim.v4.String(), identity.TCP, 99, 99),
		testEntry(victim.v6.String(), identity.UDP, 99, 99)}
	own := forger{t, attacker, victim, attacker.ifc.MAC, attacker.v4, attacker.v6}
	type row struct {
		name    string
		frame   []byte
		arrives bool
	}
	allowed := []row{
		{"UDP to 53", own.udp(53), true}, {"UDP6 to 53", own.udp6(53), true}, {"SYN to 80", own.tcp(4000, 80, true, false), true},
		{"ACK to 80", own.tcp(4000, 80, false, true), true}, {"later fragment", own.fragment(), true},
	}
	denied := []row{
		{"UDP to 99", own.udp(99), false}, {"UDP6 to 99", own.udp6(99), false}, {"SYN to 99", own.tcp(4000, 99, true, false), false},
		{"ACK to 99", own.tcp(4000, 99, false, true), false}, {"SYN and ACK to 99", own.tcp(80, 99, true, true), false},
	}
	var none []row
	for _, r := range slices.Concat(allowed, denied) {
		none = append(none, row{r.name, r.frame, false})
	}
	shapes := []struct {
		name  string
		sides policy.Sides
		rows  []row
	}{
		{"open, denies ports", denyOut(policy.Sides{}, ports...), slices.Concat(allowed, denied)},
		{"block, denies ports", denyOut(egress(allBlocks()...), ports...), slices.Concat(allowed, denied)},
		{"block, denies ports, closed to others", denyOut(both(egress(allBlocks()...), ingress()), ports...), slices.Concat(allowed, denied)},
		{"denies the peer both ways", denyIn(denyOut(policy.Sides{}, everything(victim)...), everything(victim)...), none},
		{"denies the peer, closed to others", denyOut(ingress(), everything(victim)...), none},
		{"block without the peer", denyOut(both(egress(allBlocks()...), ingress()), everything(victim)...), none},
	}
	eachGuarded(t, []*testWorkload{attacker}, func(t *testing.T) {
		for _, shape := range shapes {
			attacker.apply(t, policy.Enforce, shape.sides)
			for _, r := range shape.rows {
				t.Run(shape.name+"/"+r.name, func(t *testing.T) {
					ear := victim.sniffer(t)
					testFrame(t, attacker.path, "eth0", r.frame)
					if got := heard(ear, patience(r.arrives)); got != r.arrives {
						t.Errorf("arrived: %v, want %v", got, r.arrives)
					}
				})
			}
		}
	})
}

// TestDenyCuts takes the right of one of two clients away by a deny, at either end, while the server
// talks.
func TestDenyCuts(t *testing.T) {
	for _, row := range []struct {
		name      string
		client    func(server *testWorkload) policy.Sides
		server    func(client *testWorkload) policy.Sides
		datagrams bool // stop as well: the other direction is closed
	}{
		{"open client", func(s *testWorkload) policy.Sides { return denyOut(policy.Sides{}, everything(s)...) }, nil, false},
		{"client's block", func(s *testWorkload) policy.Sides {
			return denyOut(both(egress(allBlocks()...), ingress()), allBlocks()...)
		}, nil, true},
		{"open server", nil, func(c *testWorkload) policy.Sides { return denyIn(policy.Sides{}, everything(c)...) }, false},
		{"server's block", nil, func(c *testWorkload) policy.Sides {
			return denyIn(both(egress(), ingress(allBlocks()...)), everything(c)...)
		}, true},
		{"server both ways", nil, func(c *testWorkload) policy.Sides {
			return denyOut(denyIn(policy.Sides{}, everything(c)...), everything(c)...)
		}, true},
	} {
		for _, guarded := range []bool{true, false} {
			t.Run(fmt.Sprintf("guarded=%v/%s", guarded, row.name), func(t *testing.T) {
				node := newTestNode(t)
				server, stays, goes := node.workload(t), node.workload(t), node.workload(t)
				for _, w := range []*testWorkload{server, stays, goes} {
					if !guarded {
						w.unguarded()
					}
					w.apply(t, policy.Learn, policy.Sides{})
				}
				server.talk(t, 80)
				kept, kept6 := stays.listen(t, netip.AddrPortFrom(server.v4, 80)), stays.listen(t, netip.AddrPortFrom(server.v6, 80))
				cut, cut6 := goes.listen(t, netip.AddrPortFrom(server.v4, 80)), goes.listen(t, netip.AddrPortFrom(server.v6, 80))
				dgram, dgram6 := server.talkUDP(t, goes, 53), server.talkUDP6(t, goes, 53)
				keptDgram, keptDgram6 := server.talkUDP(t, stays, 53), server.talkUDP6(t, stays, 53)
				if row.server != nil {
					server.apply(t, policy.Enforce, row.server(goes))
				}
				if row.client != nil {
					goes.apply(t, policy.Enforce, row.client(server))
				}
				for _, k := range []*talker{cut, cut6} {
					k.isCut(t, row.server != nil)
				}
				if row.datagrams {
					dgram.silent(t)
					dgram6.silent(t)
				}
				for _, k := range []*talker{kept, kept6, keptDgram, keptDgram6} {
					k.more(t)
				}
			})
		}
	}
}

// isCut waits for the connection to end; the peer of one that was cut hears of it.
func (k *talker) isCut(t testing.TB, reset bool) {
	t.Helper()
	select {
	case err := <-k.err:
		if reset && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the peer of a cut connection: %v; want a reset", err)
		}
	case <-time.After(time.Second):
		t.Errorf("%s is not cut", k.conn.LocalAddr())
	}
	k.silent(t)
}

func (k *talker) silent(t testing.TB) {
	t.Helper()
	had := k.got.Load()
	time.Sleep(50 * time.Millisecond)
	if now := k.got.Load(); now != had {
		t.Errorf("%s: %d bytes after the right was taken", k.conn.LocalAddr(), now-had)
	}
}

// TestDenyChangesLoseNothing denies and allows other things, and the way back, under traffic that
// stays allowed.
func TestDenyChangesLoseNothing(t *testing.T) {
	for _, guarded := range []bool{true, false} {
		t.Run(fmt.Sprintf("guarded=%v", guarded), func(t *testing.T) {
			node := newTestNode(t)
			client, server := node.workload(t), node.workload(t)
			if !guarded {
				client.unguarded()
				server.unguarded()
			}
			server.serve(t, 80, 53)
			client.apply(t, policy.Learn, policy.Sides{})
			server.apply(t, policy.Learn, policy.Sides{})
			streams := startStreams(t, client, server)
			outs := []policy.Sides{
				{}, denyOut(policy.Sides{}, churn(1)...), denyOut(egress(allBlocks()...), churn(2)...),
				denyOut(egress(allows(server)...), churn(3)[:2]...), denyOut(egress(append(churn(4), allows(server)...)...), churn(5)...),
				denyOut(egress(allBlocks()...), testEntry(server.v4.String(), identity.TCP, 22, 22)),
			}
			ins := []policy.Sides{
				{}, denyIn(policy.Sides{}, churn(1)...), denyIn(ingress(allBlocks()...), churn(2)...),
				denyIn(ingress(allows(client)...), churn(3)...), denyIn(ingress(append(churn(4), allows(client)...)...), churn(6)[3:]...),
			}
			// The ways in which the server may not ask the client, whom it answers.
			mutes := [][]policy.Entry{nil, everything(client), allBlocks(), denyRanges(), churn(3)}
			for i := range 120 {
				out, in := outs[i%len(outs)], ins[(i/2)%len(ins)]
				client.apply(t, policy.Enforce, denyIn(out, mutes[(i/3)%len(mutes)][:min(2, len(mutes[(i/3)%len(mutes)]))]...))
				server.apply(t, policy.Enforce, denyOut(in, mutes[i%len(mutes)]...))
				for _, s := range streams {
					if s.broken() {
						t.Fatalf("row %d: %s: %v", i, s.name, s.err)
					}
				}
				if i%10 == 0 {
					streams[i/10%4].wait(t, 1)
				}
			}
			for _, s := range streams {
				s.end(t)
			}
		})
	}
}

// TestDenyLeaksNothing changes why something is denied. It is denied all the while, also where the
// daemon was started anew before each change and must find out from the rules what they were made from.
func TestDenyLeaksNothing(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		t.Run(fmt.Sprintf("restarts=%v", restarts), func(t *testing.T) { testDenyLeaksNothing(t, restarts) })
	}
}

func testDenyLeaksNothing(t *testing.T, restarts bool) {
	node := newTestNode(t)
	client, server := node.workload(t), node.workload(t)
	var heard atomic.Int64
	c := udpSocket(t, server, 99)
	go func() {
		for buf := make([]byte, 100); ; heard.Add(1) {
			if _, err := c.Read(buf); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	}()
	hole := testEntry(server.v4.String(), identity.UDP, 99, 99)
	rows := []policy.Sides{
		egress(), denyOut(egress(allBlocks()...), hole), egress(testEntry("10.78.0.0/16", 0, 0, 0)),
		denyOut(policy.Sides{}, allBlocks()...), egress(testEntry(server.v4.String(), identity.UDP, 53, 53)),
		denyOut(egress(allBlocks()...), everything(server)...), denyOut(egress(), hole),
		denyOut(egress(allBlocks()...), testEntry("10.77.0.0/25", identity.UDP, 90, 110)),
		denyOut(egress(testEntry("10.77.0.0/25", 0, 0, 0)), testEntry("10.77.0.0/26", identity.UDP, 80, 110)),
	}
	client.apply(t, policy.Enforce, rows[0])
	from := udpSocket(t, client, 4000)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = from.WriteToUDPAddrPort([]byte("hello"), netip.AddrPortFrom(server.v4, 99))
			}
		}
	}()
	own := forger{t, client, server, client.ifc.MAC, client.v4, client.v6}
	frame := own.udp(99)
	changes := 150
	if restarts {
		changes = 40
	}
	for i := range changes {
		if restarts {
			if err := client.ns.Close(); err != nil {
				t.Fatal(err)
			}
			client.open(t)
		}
		client.apply(t, policy.Enforce, rows[(i*i+i/3)%len(rows)])
		testFrame(t, client.path, "eth0", frame)
	}
	close(stop)
	<-done
	if n := heard.Load(); n != 0 {
		t.Errorf("%d datagrams arrived that were denied all the while", n)
	}
	client.apply(t, policy.Enforce, egress(allBlocks()...))
	if _, err := from.WriteToUDPAddrPort([]byte("hello"), netip.AddrPortFrom(server.v4, 99)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); heard.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing arrives when it is allowed")
		}
	}
}
