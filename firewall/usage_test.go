package firewall

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// usageRules fill sets as the real rules do; seen_in4 is too small.
const usageRules = `
table inet bulkhead {
	counter overflow { }
	set seen_out4 {
		type ipv4_addr . inet_proto . inet_service; size 65535; flags dynamic,timeout; counter; timeout 1m;
	}
	set seen_out6 {
		type ipv6_addr . inet_proto . inet_service; size 65535; flags dynamic,timeout; counter; timeout 1m;
	}
	set seen_in4 {
		type ipv4_addr . inet_proto . inet_service; size 16; flags dynamic,timeout; counter; timeout 1m;
	}
	set denied_out4 {
		type ipv4_addr . inet_proto . inet_service; size 4096; flags dynamic,timeout; counter; timeout 1m;
	}
	chain output {
		type filter hook output priority filter; policy accept;
		tcp flags & (syn | ack) == syn ip daddr . meta l4proto . tcp dport @seen_out4 accept
		tcp flags & (syn | ack) == syn add @seen_out4 { ip daddr . meta l4proto . tcp dport } accept
		udp dport 9 update @denied_out4 { ip daddr . meta l4proto . udp dport } drop
		ip protocol udp update @seen_out4 { ip daddr . meta l4proto . udp dport } accept
		meta l4proto udp update @seen_out6 { ip6 daddr . meta l4proto . udp dport } accept
		ip protocol icmp update @seen_out4 { ip daddr . meta l4proto . th sport } accept
	}
	chain input {
		type filter hook input priority filter; policy accept;
		udp dport 1000-2000 update @seen_in4 { ip saddr . meta l4proto . udp dport } accept
		udp dport 1000-2000 counter name overflow accept
	}
}`

// usageText prints records one a line, as a person would.
func usageText(records []flow.Record) string {
	var b strings.Builder
	for _, r := range records {
		fmt.Fprintf(&b, "%s %s %s > %s %s/%d %s: %d in %d bytes\n", r.Workload, r.Direction, r.Client, r.Server, r.Protocol, r.Port, r.Verdict, r.Count, r.Bytes)
	}
	return b.String()
}

func testMeter(t testing.TB, path string) *Meter {
	t.Helper()
	m, err := NewMeter(MeterConfig{Namespace: path, Workload: "cart",
		Addrs: []netip.Addr{netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("fd00::5")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func testUsage(t testing.TB, m *Meter) Usage {
	t.Helper()
	u, err := m.Read()
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestUsageGivesIncrements(t *testing.T) {
	path := testNamespace(t)
	testLoad(t, path, usageRules)
	m := testMeter(t, path)

	testConnect(t, path, "127.0.0.1:80") // before the meter: taken as known
	u := testUsage(t, m)
	if len(u.Seen)+len(u.Denied) != 0 {
		t.Errorf("the first read counts\n%s%s", usageText(u.Seen), usageText(u.Denied))
	}

	for range 3 {
		testConnect(t, path, "127.0.0.1:80")
	}
	testConnect(t, path, "127.0.0.1:81") // its birth only
	for range 5 {
		testSend(t, path, "127.0.0.1:53", 1)
		testSend(t, path, "[::1]:53", 1)
	}
	testEcho(t, path, netip.MustParseAddr("127.0.0.1"))
	testEcho(t, path, netip.MustParseAddr("127.0.0.1"))
	testSend(t, path, "127.0.0.1:9", 4)
	u = testUsage(t, m)
	// All but the births. ICMP/3: the five datagrams were refused by ourselves.
	want := `cart egress 10.1.0.5 > 127.0.0.1 ICMP/3 allow: 4 in 244 bytes
cart egress 10.1.0.5 > 127.0.0.1 ICMP/8 allow: 1 in 28 bytes
cart egress 10.1.0.5 > 127.0.0.1 TCP/80 allow: 3 in 180 bytes
cart egress 10.1.0.5 > 127.0.0.1 UDP/53 allow: 4 in 132 bytes
cart egress fd00::5 > ::1 UDP/53 allow: 4 in 212 bytes
`
	if got := usageText(u.Seen); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got, want := usageText(u.Denied), "cart egress 10.1.0.5 > 127.0.0.1 UDP/9 deny: 3 in 99 bytes\n"; got != want {
		t.Errorf("denied: got %swant %s", got, want)
	}
	for _, r := range append(u.Seen, u.Denied...) {
		if r.Event != flow.Usage || r.Sensor != flow.InNamespace || r.Time.IsZero() {
			t.Errorf("%+v", r)
		}
	}

	// Nothing happened: nothing is told. An element that expired and came again starts anew.
	if u = testUsage(t, m); len(u.Seen)+len(u.Denied) != 0 {
		t.Errorf("idle:\n%s", usageText(u.Seen))
	}
	testIn(t, path, "nft", "flush", "set", "inet", "bulkhead", "seen_out4")
	testConnect(t, path, "127.0.0.1:80")
	testConnect(t, path, "127.0.0.1:80")
	u = testUsage(t, m)
	if got, want := usageText(u.Seen), "cart egress 10.1.0.5 > 127.0.0.1 TCP/80 allow: 1 in 60 bytes\n"; got != want {
		t.Errorf("after expiry: got %swant %s", got, want)
	}
}

func TestUsageTellsOverflow(t *testing.T) {
	path := testNamespace(t)
	testLoad(t, path, usageRules)
	m := testMeter(t, path)
	full := func(u Usage) (names []string) {
		for _, f := range u.Sets {
			if f.Full() {
				names = append(names, f.Set)
			}
		}
		return names
	}
	u := testUsage(t, m)
	if names := full(u); names != nil || u.Counters["overflow"] != 0 {
		t.Errorf("full from the start: %v, %v", names, u.Counters)
	}
	sizes := map[string]int{}
	for _, f := range u.Sets {
		sizes[f.Set] = f.Size
	}
	if want := map[string]int{"seen_out4": 65535, "seen_out6": 65535, "seen_in4": 16, "denied_out4": 4096}; !maps.Equal(sizes, want) {
		t.Errorf("sets %v, want %v", sizes, want)
	}
	for port := range 40 {
		testSend(t, path, fmt.Sprintf("127.0.0.1:%d", 1000+port), 1)
	}
	u = testUsage(t, m)
	if names := full(u); !slices.Equal(names, []string{"seen_in4"}) {
		t.Errorf("full: %v of %+v", names, u.Sets)
	}
	if u.Counters["overflow"] != 24 {
		t.Errorf("overflow counter %d, want 24", u.Counters["overflow"])
	}
}

// What a Meter remembers is bounded, and what it knew before a flood it goes on counting.
func TestUsageIsBounded(t *testing.T) {
	path := testNamespace(t)
	testLoad(t, path, usageRules)
	m := testMeter(t, path)
	testConnect(t, path, "127.0.0.1:80")
	testUsage(t, m)
	var b strings.Builder
	b.WriteString("add element inet bulkhead seen_out4 {")
	for i := range 20000 {
		fmt.Fprintf(&b, " 10.9.%d.%d . tcp . 80,", i>>8, i&255)
	}
	testLoad(t, path, b.String()[:b.Len()-1]+"}\n")
	testConnect(t, path, "127.0.0.1:80")
	u := testUsage(t, m)
	if got, want := usageText(u.Seen), "cart egress 10.1.0.5 > 127.0.0.1 TCP/80 allow: 1 in 60 bytes\n"; got != want {
		t.Errorf("got %swant %s", got, want)
	}
	if n := len(m.last); n > 2*meterElements || u.Untracked < 20001-n || u.Untracked == 0 {
		t.Errorf("remembers %d, untracked %d", n, u.Untracked)
	}
	if f := u.Sets[0]; f.Elements != 20001 {
		t.Errorf("%+v", f)
	}
}

// The real ruleset has all eight sets, and reader and meter together count each connection once.
func TestUsageOfTheRealRuleset(t *testing.T) {
	node, path := testNamespace(t), testNamespace(t)
	n, p := filepath.Base(node), filepath.Base(path)
	testRun(t, "ip", "-n", n, "link", "add", "vhost", "up", "type", "veth", "peer", "name", "eth0", "netns", p)
	testRun(t, "ip", "-n", n, "addr", "add", "10.1.0.9/24", "dev", "vhost")
	testRun(t, "ip", "-n", p, "addr", "add", "10.1.0.5/24", "dev", "eth0")
	testRun(t, "ip", "-n", p, "link", "set", "eth0", "up")
	r, err := NewReader(ReaderConfig{Namespace: path, Workload: "cart"})
	if err != nil {
		t.Fatal(err)
	}
	records := testRecords(t, r)
	ns, err := Open(Config{NetNS: path, Node: node})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	if _, err := ns.Apply(Compile(Spec{Mode: policy.Learn})); err != nil {
		t.Fatal(err)
	}
	m := testMeter(t, path)
	if u := testUsage(t, m); len(u.Sets) != 8 || len(u.Counters) == 0 {
		t.Errorf("sets %+v, counters %v", u.Sets, u.Counters)
	}
	for range 5 {
		testConnect(t, path, "10.1.0.9:80")
	}
	count := uint64(0)
	for count < 1 {
		if rec := testNext(t, records); rec.Protocol == identity.TCP && rec.Port == 80 && rec.Event == flow.Birth &&
			rec.Direction == policy.Egress && rec.Server == decode4b {
			count += rec.Count
		}
	}
	for _, rec := range testUsage(t, m).Seen {
		if rec.Protocol == identity.TCP && rec.Port == 80 && rec.Server == decode4b && rec.Client == decode4a {
			count += rec.Count
		}
	}
	if count != 5 {
		t.Errorf("five connections were counted as %d", count)
	}
}

func TestUsageWithoutTable(t *testing.T) {
	m := testMeter(t, testNamespace(t))
	if u := testUsage(t, m); len(u.Sets) != 0 || len(u.Seen) != 0 {
		t.Errorf("%+v", u)
	}
}

// testElement is an element as the kernel writes it; list puts the counter in a list of expressions.
func testElement(key []byte, packets, bytes byte, list bool) []byte {
	be := func(n byte) []byte { return []byte{0, 0, 0, 0, 0, 0, 0, n} }
	counter := testAttribute(testAttribute(nil, 1, be(bytes)), 2, be(packets))
	expr := testAttribute(testAttribute(nil, 1, []byte("counter\x00")), 2|nlaNested, counter)
	b := testAttribute(nil, 1|nlaNested, testAttribute(nil, 1, key))
	if list {
		last := testAttribute(testAttribute(nil, 1, []byte("last\x00")), 2|nlaNested, nil)
		return testAttribute(b, 11|nlaNested, testAttribute(testAttribute(nil, 1|nlaNested, expr), 1|nlaNested, last))
	}
	return testAttribute(b, 7|nlaNested, expr)
}

var usageTestKey4 = []byte{10, 1, 0, 9, 6, 0, 0, 0, 0, 80, 0, 0}

func TestUsageElement(t *testing.T) {
	key6 := append(netip.MustParseAddr("fd00::9").AsSlice(), 17, 0, 0, 0, 0, 53, 0, 0)
	for _, c := range []struct {
		name   string
		data   []byte
		family int
		want   usageKey
		ok     bool
	}{
		{"IPv4", testElement(usageTestKey4, 3, 180, false), 4, usageKey{decode4b, 80, 6, 0}, true},
		{"IPv6, several expressions", testElement(key6, 3, 180, true), 6, usageKey{decode6b, 53, 17, 0}, true},
		{"key of the other family", testElement(usageTestKey4, 3, 180, false), 6, usageKey{}, false},
		{"no counter", testAttribute(nil, 1, testAttribute(nil, 1, usageTestKey4)), 4, usageKey{}, false},
		{"nothing", nil, 4, usageKey{}, false},
	} {
		k, n, ok := usageElement(c.data, c.family)
		if ok != c.ok || ok && (k != c.want || n != usageCount{3, 180}) {
			t.Errorf("%s: %+v %+v %v", c.name, k, n, ok)
		}
	}
	if p := usagePort(usageKey{protocol: uint8(identity.ICMP), port: 8<<8 | 3}); p != 8 {
		t.Errorf("ICMP type %d", p)
	}
	if p := usagePort(usageKey{protocol: 47, port: 1234}); p != 0 {
		t.Errorf("GRE port %d", p)
	}
}

func FuzzUsageElement(f *testing.F) {
	f.Add(testElement(usageTestKey4, 1, 60, false), true)
	f.Add(testElement(append(decode6b.AsSlice(), 17, 0, 0, 0, 0, 53, 0, 0), 1, 60, true), false)
	f.Fuzz(func(t *testing.T, b []byte, v4 bool) {
		family := 6
		if v4 {
			family = 4
		}
		if k, _, ok := usageElement(b, family); ok && (!k.addr.IsValid() || v4 && !k.addr.Is4()) {
			t.Errorf("%+v", k)
		}
	})
}
