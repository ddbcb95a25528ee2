package firewall

import (
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// TestGuardChainsShared: equal guards share their chains, guards that differ in anything that a chain says
// do not, and what no ruleset holds any more is forgotten.
func TestGuardChainsShared(t *testing.T) {
	spec := func(change func(*Spec)) Spec {
		s := Spec{Mode: policy.Enforce, Sides: shopSides(), Interfaces: []Interface{shopInterface("shared0")}}
		change(&s)
		return s
	}
	first := Compile(spec(func(*Spec) {}))
	sender := func(rs *Ruleset) *Chain { return rs.Tables[1].chain("sender") }
	if again := Compile(spec(func(s *Spec) { s.Sides.Egress.Entries = s.Sides.Egress.Entries[1:] })); sender(again) != sender(first) {
		t.Error("an entry less made the guard's chains anew")
	}
	for what, change := range map[string]func(*Spec){
		"mode":      func(s *Spec) { s.Mode = policy.Learn },
		"MAC":       func(s *Spec) { s.Interfaces[0].MAC = []byte{2, 0, 0, 0, 0, 77} },
		"address":   func(s *Spec) { s.Interfaces[0].Addrs = []netip.Addr{netip.MustParseAddr("10.1.0.77")} },
		"host end":  func(s *Spec) { s.Interfaces[0].Host = "shared1" },
		"inside":    func(s *Spec) { s.Interfaces[0].Host = "" },
		"open side": func(s *Spec) { s.Sides.Egress = policy.Side{} },
		"answers":   func(s *Spec) { s.Hear, s.Resolvers = true, []netip.Addr{netip.MustParseAddr("10.1.0.53")} },
	} {
		same := func(a, b *Table) bool {
			return slices.EqualFunc(a.Chains, b.Chains, func(a, b *Chain) bool {
				return slices.EqualFunc(a.Rules, b.Rules, Rule.same) && reflect.DeepEqual(a.Hook, b.Hook)
			})
		}
		other := Compile(spec(change))
		if same(other.Tables[1], first.Tables[1]) {
			t.Errorf("%s: the guard's rules are the same", what)
		}
	}
	runtime.KeepAlive(first)
	kept := guard{spec: spec(func(*Spec) {}), ifc: shopInterface("shared0")}.shape()
	first = nil
	for range 3 {
		runtime.GC()
	}
	guards.Lock()
	defer guards.Unlock()
	if guards.of[kept].Value() != nil {
		t.Error("chains that no ruleset holds are kept")
	}
}
