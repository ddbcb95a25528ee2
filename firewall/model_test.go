package firewall

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// TestDisjoint compares the boxes with the plain answer, on random ones in a small world.
func TestDisjoint(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		var boxes []box
		for range rnd.IntN(8) + 1 {
			bits := 26 + rnd.IntN(7)
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rnd.IntN(64))}), bits).Masked()
			if rnd.IntN(20) == 0 {
				p = netip.MustParsePrefix("0.0.0.0/0")
			}
			proto := []identity.Protocol{identity.AnyProtocol, identity.TCP, identity.UDP, 47}[rnd.IntN(4)]
			from := uint16(rnd.IntN(10))
			to := from + uint16(rnd.IntN(5))
			if rnd.IntN(3) == 0 {
				from, to = 0, 65535
			}
			b := boxOf(p, proto, from, to)
			if proto != identity.AnyProtocol && from == 0 && to == 65535 {
				b.protoHi += uint8(rnd.IntN(60)) // a range of protocols has every port
			}
			boxes = append(boxes, b)
		}
		out := disjoint(boxes)
		for i, a := range out {
			for _, b := range out[i+1:] {
				if a.overlaps(b) {
					t.Fatalf("round %d: %v and %v overlap; from %v", round, a, b, boxes)
				}
			}
		}
		for i := range 64 {
			addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
			for _, proto := range []uint8{0, 6, 7, 17, 18, 30, 46, 47, 48, 60, 80, 255} {
				for _, port := range []uint16{0, 1, 3, 5, 8, 11, 14, 65535} {
					if got, want := covers(out, addr, proto, port), covers(boxes, addr, proto, port); got != want {
						t.Fatalf("round %d: %v %d %d: covered %v, want %v; %v from %v", round, addr, proto, port, got, want, out, boxes)
					}
				}
			}
		}
	}
}

func (a box) overlaps(b box) bool {
	return a.lo.Compare(b.hi) <= 0 && b.lo.Compare(a.hi) <= 0 && a.protoLo <= b.protoHi && b.protoLo <= a.protoHi &&
		a.portLo <= b.portHi && b.portLo <= a.portHi
}

func covers(list []box, addr netip.Addr, proto uint8, port uint16) bool {
	return slices.ContainsFunc(list, func(b box) bool {
		return b.lo.Compare(addr) <= 0 && addr.Compare(b.hi) <= 0 && b.protoLo <= proto && proto <= b.protoHi &&
			b.portLo <= port && port <= b.portHi
	})
}

// TestNestedBlocksGrowLinearly: PAINS 44.
func TestNestedBlocksGrowLinearly(t *testing.T) {
	var boxes []box
	for bits := 8; bits <= 32; bits++ {
		boxes = append(boxes, boxOf(netip.PrefixFrom(netip.MustParseAddr("10.1.2.3"), bits), identity.TCP, uint16(bits), uint16(bits)))
		boxes = append(boxes, boxOf(netip.PrefixFrom(netip.MustParseAddr("10.1.2.3"), bits), identity.TCP, 443, 443))
	}
	if n := len(disjoint(boxes)); n > len(boxes) {
		t.Errorf("%d blocks became %d elements", len(boxes), n)
	}
}

// randomSpec is a spec of a small world, in which specs have much in common.
func randomSpec(rnd *rand.Rand, host string) Spec {
	side := func() policy.Side {
		s := policy.Side{Isolated: rnd.IntN(4) != 0}
		for n := range 2 * rnd.IntN(12) {
			denied := n%2 == 1
			if !denied && !s.Isolated || denied && rnd.IntN(3) == 0 {
				continue
			}
			peer := fmt.Sprintf("10.0.%d.%d/%d", rnd.IntN(2), rnd.IntN(8), []int{32, 32, 30, 24}[rnd.IntN(4)])
			if rnd.IntN(3) == 0 {
				peer = fmt.Sprintf("fd00::%x/%d", rnd.IntN(8), []int{128, 126, 64}[rnd.IntN(3)])
			}
			proto := []identity.Protocol{0, identity.TCP, identity.UDP, identity.ICMP, identity.ICMPv6, identity.SCTP, 47}[rnd.IntN(7)]
			from := uint16(rnd.IntN(9))
			to := from + uint16(rnd.IntN(4))
			switch {
			case proto == 0:
				from, to = 0, 0
			case rnd.IntN(3) == 0:
				from, to = 0, 65535
			}
			p := netip.MustParsePrefix(peer).Masked()
			e := policy.Entry{Peer: p, Protocol: proto, Port: from, EndPort: to}
			if rnd.IntN(8) == 0 {
				e.Port, e.EndPort, e.EndProtocol = 0, 65535, e.Protocol+identity.Protocol(rnd.IntN(80)+1)
			}
			if denied {
				s.Denied = append(s.Denied, e)
			} else {
				s.Entries = append(s.Entries, e)
			}
		}
		return s
	}
	return Spec{Mode: policy.Mode(rnd.IntN(3)), Sides: policy.Sides{Egress: side(), Ingress: side()}, Interfaces: []Interface{shopInterface(host)}}
}

// carry is what the kernel does with changes.
func carry(have *Ruleset, changes []Change) *Ruleset {
	out := &Ruleset{}
	if have != nil {
		for _, t := range have.Tables {
			out.Tables = append(out.Tables, cloneTable(t))
		}
	}
	for _, c := range changes {
		t := out.table(c.Table)
		switch c.Op {
		case DeleteTable:
			out.Tables = slices.DeleteFunc(out.Tables, func(x *Table) bool { return x == t })
		case CreateTable:
			out.Tables = append(out.Tables, &Table{Place: c.Table.Place, Family: c.Table.Family, Name: c.Table.Name})
		case AddCounter:
			t.Counters = append(t.Counters, c.Name)
		case DeleteCounter:
			t.Counters = slices.DeleteFunc(t.Counters, func(n string) bool { return n == c.Name })
		case AddSet:
			s := *c.Set
			s.Elements = nil
			t.Sets = append(t.Sets, &s)
		case DeleteSet:
			t.Sets = slices.DeleteFunc(t.Sets, func(s *Set) bool { return s.Name == c.Name })
		case AddElements:
			s := t.set(c.Name)
			s.Elements = append(s.Elements, c.Elements...)
			sortElements(s.Elements)
		case DeleteElements:
			s := t.set(c.Name)
			s.Elements = slices.DeleteFunc(s.Elements, func(e Element) bool { return slices.Contains(c.Elements, e) })
		case AddChain:
			t.Chains = append(t.Chains, &Chain{Name: c.Name, Hook: c.Chain.Hook})
		case FlushChain:
			t.chain(c.Name).Rules = nil
		case AddRules:
			t.chain(c.Name).Rules = append(t.chain(c.Name).Rules, c.Chain.Rules...)
		case DeleteChain:
			t.Chains = slices.DeleteFunc(t.Chains, func(x *Chain) bool { return x.Name == c.Name })
		}
	}
	for _, t := range out.Tables {
		t.sort()
	}
	return out
}

func cloneTable(t *Table) *Table {
	c := &Table{Place: t.Place, Family: t.Family, Name: t.Name, Counters: slices.Clone(t.Counters)}
	for _, s := range t.Sets {
		s := *s
		s.Elements = slices.Clone(s.Elements)
		c.Sets = append(c.Sets, &s)
	}
	for _, ch := range t.Chains {
		c.Chains = append(c.Chains, &Chain{Name: ch.Name, Hook: ch.Hook, Rules: slices.Clone(ch.Rules)})
	}
	return c
}

// TestDiffLeadsToWant carries out differences between random rulesets.
func TestDiffLeadsToWant(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var have *Ruleset
	for round := range 300 {
		want := Compile(randomSpec(rnd, []string{"host0", "host1", ""}[rnd.IntN(3)]))
		got := carry(have, Diff(have, want))
		if len(got.Tables) != len(want.Tables) {
			t.Fatalf("round %d: %d tables, want %d", round, len(got.Tables), len(want.Tables))
		}
		for _, w := range want.Tables {
			if g := got.table(w); g == nil || g.String() != w.String() {
				t.Fatalf("round %d: table %s (- want, + got):\n%s", round, w.Name, cmp.Diff(w.String(), g.String()))
			}
		}
		if more := Diff(want, want); len(more) != 0 {
			t.Fatalf("round %d: %d changes between equals, first %s", round, len(more), more[0])
		}
		have = want
	}
}

// TestKernelFollowsDiff does the same with the kernel, and compares what it reads back.
func TestKernelFollowsDiff(t *testing.T) {
	node, inside := testNamespace(t), testNamespace(t)
	testRun(t, "ip", "-n", filepath.Base(node), "link", "add", "host0", "type", "veth", "peer", "name", "eth0", "netns", filepath.Base(inside))
	rnd := rand.New(rand.NewPCG(5, 6))
	ns := testOpen(t, Config{NetNS: inside, Node: node, Interfaces: []Interface{shopInterface("host0")}})
	for round := range 80 {
		host := "host0"
		if rnd.IntN(5) == 0 {
			host = ""
		}
		want := Compile(randomSpec(rnd, host))
		if _, err := ns.Apply(want); err != nil {
			t.Fatalf("round %d: %v\n%s", round, err, want)
		}
		if err := ns.Check(); err != nil {
			t.Fatalf("round %d: %v\n%s", round, err, want)
		}
	}
}

// TestEqualSpecs: the same entries in another order compile to the same ruleset.
func TestEqualSpecs(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	for range 50 {
		spec := randomSpec(rnd, "host0")
		other := spec
		other.Sides.Egress.Entries = slices.Clone(spec.Sides.Egress.Entries)
		other.Sides.Ingress.Entries = slices.Clone(spec.Sides.Ingress.Entries)
		for _, e := range [][]policy.Entry{other.Sides.Egress.Entries, other.Sides.Ingress.Entries} {
			rnd.Shuffle(len(e), func(i, j int) { e[i], e[j] = e[j], e[i] })
		}
		a, b := Compile(spec), Compile(other)
		if changes := Diff(a, b); len(changes) != 0 {
			t.Fatalf("%d changes, first %s", len(changes), changes[0])
		}
		if diff := cmp.Diff(a.String(), b.String(), cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
	}
}

func BenchmarkCompile10000(b *testing.B) {
	spec := manySpec(0)
	b.ReportAllocs()
	for b.Loop() {
		Compile(spec)
	}
}

func BenchmarkDiffOneOf10000(b *testing.B) {
	have, want := Compile(manySpec(0)), Compile(manySpec(1))
	b.ReportAllocs()
	for b.Loop() {
		if len(Diff(have, want)) == 0 {
			b.Fatal("no change")
		}
	}
}

// BenchmarkApplyOneOf10000 is one peer more or less, from entries to the kernel.
func BenchmarkApplyOneOf10000(b *testing.B) {
	node := newTestNode(b)
	w := node.workload(b)
	sides := []policy.Sides{manySpec(0).Sides, manySpec(1).Sides}
	w.apply(b, policy.Enforce, sides[0])
	i := 0
	for b.Loop() {
		i++
		w.apply(b, policy.Enforce, sides[i%2])
	}
}

func manySpec(less int) Spec {
	e := manyEntries(10000)
	return Spec{Mode: policy.Enforce, Sides: both(egress(e[less:]...), ingress(e...)), Interfaces: []Interface{shopInterface("host0")}}
}

func BenchmarkCompileSmall(b *testing.B) {
	spec := Spec{Mode: policy.Enforce, Sides: shopSides(), Interfaces: []Interface{shopInterface("host0")}}
	b.ReportAllocs()
	for b.Loop() {
		Compile(spec)
	}
}
