package gossip

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func addrs(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, p := range list {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// Each case tells what nodes say, one after the other, and who has 10.4.2.7 then: "node/key", several
// where they are one identity, or nobody. The observer is node "me".
func TestClaims(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	soon, late := at.Add(time.Second), at.Add(time.Hour)
	set := func(node, key, is string, list ...string) func(*Claims) {
		return func(c *Claims) { _ = c.Set(node, key, addrs(list...), is) }
	}
	says := func(node string, when time.Time, list ...string) func(*Claims) {
		return func(c *Claims) { c.SetBlocks(node, prefixes(list...), when) }
	}
	dead := func(node string) func(*Claims) { return func(c *Claims) { c.Alive(node, false) } }
	back := func(node string) func(*Claims) { return func(c *Claims) { c.Alive(node, true) } }
	ip := "10.4.2.7"
	for _, c := range []struct {
		name  string
		steps []func(*Claims)
		want  string
		why   string // of the first dispute
	}{
		{"one claims it", []func(*Claims){set("a", "web", "web", ip)}, "a/web", ""},
		{"it lets go", []func(*Claims){set("a", "web", "web", ip), set("a", "web", "web")}, "", ""},
		{"a second node claims it", []func(*Claims){set("a", "web", "web", ip), set("b", "x", "admin", ip)}, "", `is claimed by node "b" too`},
		{"in the other order", []func(*Claims){set("b", "x", "admin", ip), set("a", "web", "web", ip)}, "", `is claimed by node "b" too`},
		{"the first lets go: the pod moved", []func(*Claims){set("a", "web", "web", ip), set("b", "x", "cart", ip), set("a", "web", "web")}, "b/x", ""},
		{"the first died", []func(*Claims){set("a", "web", "web", ip), set("b", "x", "cart", ip), dead("a")}, "b/x", ""},
		{"the first died and comes back with its old word", []func(*Claims){set("a", "web", "web", ip), set("b", "x", "cart", ip), dead("a"), back("a")}, "", `is claimed by`},
		{"both dead", []func(*Claims){set("a", "web", "web", ip), set("b", "x", "cart", ip), dead("a"), dead("b")}, "", ""},
		{"a dead node keeps what nobody else claims", []func(*Claims){set("a", "web", "web", ip), dead("a")}, "a/web", ""},
		{"the same workload, moved", []func(*Claims){set("a", "web", "web", ip), set("b", "web2", "web", ip)}, "a/web b/web2", ""},
		{"two workloads of one node are its own affair", []func(*Claims){set("a", "web", "web", ip), set("a", "new", "cart", ip)}, "a/new a/web", ""},
		{"this node's own", []func(*Claims){set("a", "web", "admin", ip), set("me", "own", "cart", ip)}, "me/own", `is a workload's of this node`},
		{"this node's own, same identity", []func(*Claims){set("a", "web", "cart", ip), set("me", "own", "cart", ip)}, "me/own", `is a workload's of this node`},

		{"within its range", []func(*Claims){says("a", at, "10.4.2.0/24"), set("a", "web", "web", ip)}, "a/web", ""},
		{"outside of its range", []func(*Claims){says("a", at, "10.4.3.0/24"), set("a", "web", "web", ip)}, "", "is in none of the ranges that the node may use"},
		{"in another's range", []func(*Claims){says("a", at, "10.4.2.0/24"), set("b", "x", "admin", ip)}, "", `is in the range 10.4.2.0/24 of node "a"`},
		{"a liar in another's range takes nothing away", []func(*Claims){says("a", at, "10.4.2.0/24"), set("b", "x", "admin", ip), set("a", "web", "web", ip)}, "a/web", `is in the range`},
		{"nor does one with ranges of its own", []func(*Claims){says("a", at, "10.4.2.0/24"), says("b", at, "10.4.3.0/24"), set("b", "x", "admin", ip), set("a", "web", "web", ip)}, "a/web", `is in the range`},
		{"a range over another's, later", []func(*Claims){says("a", at, "10.4.2.0/24"), says("b", late, "10.0.0.0/8"), set("b", "x", "admin", ip), set("a", "web", "web", ip)}, "a/web", `range 10.0.0.0/8 overlaps 10.4.2.0/24 of node "a"`},
		{"a narrower one, later", []func(*Claims){says("a", at, "10.4.0.0/16"), says("b", late, "10.4.2.0/28"), set("b", "x", "admin", ip), set("a", "web", "web", ip)}, "a/web", `range 10.4.2.0/28 overlaps`},
		{"at the same time: nobody's", []func(*Claims){says("b", at, "10.0.0.0/8"), says("a", soon, "10.4.2.0/24"), set("b", "x", "admin", ip), set("a", "web", "web", ip)}, "", `range 10.4.2.0/24 overlaps`},
		{"nor a third's", []func(*Claims){says("b", at, "10.0.0.0/8"), says("a", soon, "10.4.2.0/24"), set("c", "x", "admin", ip)}, "", `range 10.4.2.0/24 overlaps`},
		{"this node's own range, whoever was first", []func(*Claims){says("b", at, "10.0.0.0/8"), says("me", late, "10.4.2.0/24"), set("b", "x", "admin", ip), set("me", "own", "web", ip)}, "me/own", `range 10.0.0.0/8 overlaps`},
		{"the liar goes", []func(*Claims){says("b", at, "10.0.0.0/8"), says("a", soon, "10.4.2.0/24"), set("a", "web", "web", ip), func(c *Claims) { c.Forget("b") }}, "a/web", ""},
		{"the range is given back", []func(*Claims){says("b", at, "10.0.0.0/8"), set("a", "web", "web", ip), says("b", late)}, "a/web", ""},
		{"the other family", []func(*Claims){says("a", at, "fd00::/64"), set("b", "x", "cart", ip)}, "b/x", ""},
	} {
		cl := NewClaims("me")
		told := map[Ref][]netip.Addr{} // as somebody who follows TakeChanged has it
		for _, s := range c.steps {
			s(cl)
			for _, r := range cl.TakeChanged() {
				told[r] = cl.Held(r)
			}
		}
		var has []string
		for _, n := range []string{"a", "b", "c", "me"} {
			for _, k := range []string{"new", "own", "web", "web2", "x"} {
				r := Ref{n, k}
				held := cl.Held(r)
				if slices.Contains(held, netip.MustParseAddr(ip)) {
					has = append(has, n+"/"+k)
				}
				if n := cl.claimants[n]; n != nil && n.claims[k] != nil && !slices.Equal(held, told[r]) {
					t.Errorf("%s: %v holds %v, told was %v", c.name, r, held, told[r])
				}
			}
		}
		if got := strings.Join(has, " "); got != c.want {
			t.Errorf("%s: held by %q, want %q", c.name, got, c.want)
		}
		d := cl.Disputes()
		if (len(d) > 0) != (c.why != "") || len(d) > 0 && !strings.Contains(d[0].What, c.why) {
			t.Errorf("%s: disputes %+v, want %q", c.name, d, c.why)
		}
	}
}

// What a node can make others remember has an end, and leaves nothing when it goes.
func TestClaimsAreBounded(t *testing.T) {
	c := NewClaims("me")
	var full error
	for i := range maxClaimed/8 + 10 {
		var list []netip.Addr
		for j := range 8 {
			list = append(list, netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(j)}))
		}
		full = errors.Join(full, c.Set("liar", fmt.Sprint(i), list, "x"))
	}
	if !errors.Is(full, errFull) || len(c.byAddr) != maxClaimed {
		t.Errorf("%d addresses, %v", len(c.byAddr), full)
	}
	c.SetBlocks("liar", prefixes("0.0.0.0/1", "128.0.0.0/1"), time.Unix(1, 0))
	c.Forget("liar")
	c.TakeChanged()
	if len(c.byAddr)+len(c.more)+len(c.claimants)+len(c.blocks)+len(c.lengths)+len(c.stale) != 0 {
		t.Errorf("left: %d addresses, %d nodes, %d ranges", len(c.byAddr), len(c.claimants), len(c.blocks))
	}
}

// What a claim costs in memory: 100,000 of 1,000 nodes, that all have what they claim.
func BenchmarkClaims(b *testing.B) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for range b.N {
		before := heap()
		c := NewClaims("me")
		for n := range 1000 {
			name := fmt.Sprint("node-", n)
			c.SetBlocks(name, []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 0}), 24)}, time.Unix(1, 0))
			for i := range 100 {
				if err := c.Set(name, fmt.Sprint("pod-", i), []netip.Addr{netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), byte(i)})}, fmt.Sprint(i%50)); err != nil {
					b.Fatal(err)
				}
			}
		}
		if n := len(c.TakeChanged()); n != 100_000 {
			b.Fatalf("%d are granted", n)
		}
		b.ReportMetric(float64(heap()-before)/100_000, "B/claim")
		runtime.KeepAlive(c)
	}
}

func FuzzBlocks(f *testing.F) {
	good, err := encodeBlocks(prefixes("10.4.2.0/24", "fd00::/64"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, value []byte) {
		list, err := DecodeBlocks(value)
		if err != nil {
			return
		}
		again, err := encodeBlocks(list)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeBlocks(again)
		if err != nil || !slices.Equal(list, back) {
			t.Fatalf("%v, %v after %v", back, err, list)
		}
	})
}
