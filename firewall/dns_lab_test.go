package firewall

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// testZone is what the test's DNS server answers: records of a name, in order.
type testZone struct {
	mu  sync.Mutex
	of  func(name string, kind dnsmessage.Type) []dnsmessage.Resource
	tcp func(message []byte) [][]byte // how a message is cut into writes; nil: in one
}

// serve sets what is answered. The lock orders it with the server, which no packet does.
func (z *testZone) serve(of func(name string, kind dnsmessage.Type) []dnsmessage.Resource) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.of = of
}

// cut sets how messages over TCP are cut into writes.
func (z *testZone) cut(tcp func(message []byte) [][]byte) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.tcp = tcp
}

// writes cuts a message.
func (z *testZone) writes(message []byte) [][]byte {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.tcp == nil {
		return [][]byte{message}
	}
	return z.tcp(message)
}

func (z *testZone) answer(query []byte) []byte {
	var q dnsmessage.Message
	if q.Unpack(query) != nil || len(q.Questions) != 1 {
		return nil
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RecursionDesired: true, RecursionAvailable: true},
		Questions: q.Questions, Answers: z.of(strings.TrimSuffix(q.Questions[0].Name.String(), "."), q.Questions[0].Type)}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}

func record(name string, ttl uint32, body dnsmessage.ResourceBody) dnsmessage.Resource {
	h := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name + "."), Class: dnsmessage.ClassINET, TTL: ttl}
	return dnsmessage.Resource{Header: h, Body: body}
}

func recordA(name string, ttl uint32, a netip.Addr) dnsmessage.Resource {
	if a.Is6() {
		return record(name, ttl, &dnsmessage.AAAAResource{AAAA: a.As16()})
	}
	return record(name, ttl, &dnsmessage.AResource{A: a.As4()})
}

func recordCNAME(name, to string) dnsmessage.Resource {
	return record(name, 300, &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(to + ".")})
}

// serveDNS answers on UDP and TCP port 53 of the workload.
func (w *testWorkload) serveDNS(t testing.TB, z *testZone) {
	t.Helper()
	err := Enter(w.path, func() error {
		for _, a := range []netip.Addr{w.v4, w.v6} {
			c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 53)))
			if err != nil {
				return err
			}
			t.Cleanup(func() { c.Close() })
			go func() {
				buf := make([]byte, 4096)
				for {
					n, from, err := c.ReadFromUDPAddrPort(buf)
					if err != nil {
						return
					}
					_, _ = c.WriteToUDPAddrPort(z.answer(buf[:n]), from)
				}
			}()
		}
		l, err := net.Listen("tcp", ":53")
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go z.stream(c)
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// stream answers every question of a connection.
func (z *testZone) stream(c net.Conn) {
	defer c.Close()
	_ = c.(*net.TCPConn).SetNoDelay(true)
	for {
		head := make([]byte, 2)
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		q := make([]byte, binary.BigEndian.Uint16(head))
		if _, err := io.ReadFull(c, q); err != nil {
			return
		}
		a := z.answer(q)
		m := append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...)
		for i, p := range z.writes(m) {
			if i > 0 {
				time.Sleep(5 * time.Millisecond) // a segment of its own
			}
			if _, err := c.Write(p); err != nil {
				return
			}
		}
	}
}

func question(id uint16, name string, kind dnsmessage.Type) []byte {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name + "."), Type: kind, Class: dnsmessage.ClassINET}}}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// ask sends a question over a socket and gives the answer's addresses.
func ask(t testing.TB, c net.Conn, name string, kind dnsmessage.Type) []netip.Addr {
	t.Helper()
	_ = c.SetDeadline(deadline(true))
	q := question(1, name, kind)
	_, stream := c.(*net.TCPConn)
	if stream {
		q = append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...)
	}
	if _, err := c.Write(q); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 65536)
	var n int
	var err error
	if stream {
		if _, err = io.ReadFull(c, buf[:2]); err == nil {
			n = int(binary.BigEndian.Uint16(buf))
			_, err = io.ReadFull(c, buf[:n])
		}
	} else {
		n, err = c.Read(buf)
	}
	if err != nil {
		t.Fatalf("no answer for %s: %v", name, err)
	}
	a, err := flow.ReadAnswer(buf[:n])
	if err != nil {
		t.Fatal(err)
	}
	var out []netip.Addr
	for _, x := range a.Addrs {
		out = append(out, x.Addr)
	}
	return out
}

// dnsLab is a client that may ask a resolver and talk to what has a name, and a server with many
// addresses: 10.78.0.0/16 and fd78::/64.
type dnsLab struct {
	t                        testing.TB
	node                     *testNode
	client, resolver, server *testWorkload
	zone                     *testZone
	names                    *flow.Names
	mu                       sync.Mutex // of the names in sides: answers are read while tests change them
	sides                    policy.Sides
	answers                  *Answers
	end                      context.CancelFunc
	done                     chan error
	closed                   bool
	fail                     error // of learning
}

func newDNSLab(t testing.TB, guarded bool, names ...policy.NameEntry) *dnsLab {
	t.Helper()
	node := newTestNode(t)
	l := &dnsLab{t: t, node: node, client: node.workload(t), resolver: node.workload(t), server: node.workload(t), zone: &testZone{}}
	for _, w := range []*testWorkload{l.client, l.resolver, l.server} {
		w.ifc.HostIndex = hostIndex(t, node, w.ifc.Host)
		if w == l.server {
			continue
		}
		testRun(t, "ip", "-n", filepath.Base(w.path), "route", "add", "10.78.0.0/16", "via", l.server.v4.String())
		testRun(t, "ip", "-n", filepath.Base(w.path), "-6", "route", "add", "fd78::/64", "via", l.server.v6.String())
	}
	testRun(t, "ip", "-n", filepath.Base(l.server.path), "route", "add", "local", "10.78.0.0/16", "dev", "lo")
	testRun(t, "ip", "-n", filepath.Base(l.server.path), "-6", "route", "add", "local", "fd78::/64", "dev", "lo")
	if !guarded {
		l.client.unguarded()
	}
	l.resolver.serveDNS(t, l.zone)
	l.names = flow.NewNames(flow.NameLimits{})
	side := policy.Side{Isolated: true, Names: names}
	for _, a := range []netip.Addr{l.resolver.v4, l.resolver.v6} {
		side.Entries = append(side.Entries, testEntry(a.String(), identity.UDP, 53, 53), testEntry(a.String(), identity.TCP, 53, 53))
	}
	l.sides = policy.Sides{Egress: side, Ingress: policy.Side{Isolated: true}}
	return l
}

func hostIndex(t testing.TB, n *testNode, name string) int {
	t.Helper()
	index := 0
	err := Enter(n.path, func() error {
		ifc, err := net.InterfaceByName(name)
		if err == nil {
			index = ifc.Index
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return index
}

func (l *dnsLab) spec(mode policy.Mode) Spec {
	s := l.client.spec(mode, l.sides)
	s.Resolvers = []netip.Addr{l.resolver.v4, l.resolver.v6}
	s.AnswersClosed = l.closed
	return s
}

func (l *dnsLab) apply(mode policy.Mode) {
	l.t.Helper()
	if l.client.ns == nil {
		l.client.open(l.t)
	}
	if _, err := l.client.ns.Apply(Compile(l.spec(mode))); err != nil {
		l.t.Fatal(err)
	}
}

// read starts to read answers as the daemon does.
func (l *dnsLab) read() {
	l.t.Helper()
	var patterns []string
	for _, n := range l.sides.Egress.Names {
		patterns = append(patterns, n.Name)
	}
	l.names.SetPatterns(patterns)
	a, err := OpenAnswers(AnswersConfig{Namespace: l.client.path, Node: l.node.path, Interfaces: []Interface{l.client.ifc}, Closed: l.closed})
	if err != nil {
		l.t.Fatal(err)
	}
	var ctx context.Context
	ctx, l.end = context.WithCancel(context.Background())
	l.answers, l.done = a, make(chan error, 1)
	go func() { l.done <- a.Run(ctx, l.learn) }()
	l.t.Cleanup(l.stop)
}

func (l *dnsLab) stop() {
	if l.answers == nil {
		return
	}
	l.end()
	if err := <-l.done; err != nil {
		l.t.Error(err)
	}
	if err := l.answers.Close(); err != nil {
		l.t.Error(err)
	}
	l.answers = nil
}

func (l *dnsLab) learn(a flow.Answer) error {
	if l.fail != nil {
		return l.fail
	}
	return l.open(l.names.Learn(a, nil, time.Now()))
}

// name gives the workload other names.
func (l *dnsLab) name(names []policy.NameEntry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sides.Egress.Names = names
}

func (l *dnsLab) named() []policy.NameEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sides.Egress.Names
}

func (l *dnsLab) open(addrs []netip.Addr) error {
	var list []Learned
	for _, a := range addrs {
		entries, until := l.names.Openings(a, l.named())
		list = append(list, Learned{a, entries, until})
	}
	if len(list) == 0 {
		return nil
	}
	return l.client.ns.Learn(list)
}

func (l *dnsLab) dialDNS(network string, v6 bool) net.Conn {
	l.t.Helper()
	c, err := l.client.dial(network, netip.AddrPortFrom(l.resolver.addr(v6), 53), patience(true))
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}
