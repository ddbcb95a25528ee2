package firewall

import (
	"slices"
	"strings"
	"sync"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Hooks, as the kernel numbers them (uapi/linux/netfilter.h).
const (
	hookInput   = 1 // NF_INET_LOCAL_IN
	hookOutput  = 3 // NF_INET_LOCAL_OUT
	hookIngress = 0 // NF_NETDEV_INGRESS
	hookEgress  = 1 // NF_NETDEV_EGRESS
)

// families are both address families, in an inet table.
var families = []site{{v6: false}, {v6: true}}

// Compile makes a workload's ruleset: the table in its namespace, and a guard for each interface.
// It is pure, and equal specs give equal rulesets.
func Compile(spec Spec) *Ruleset {
	spec.Interfaces = slices.Clone(spec.Interfaces)
	// Both places hold the same sets, which nobody writes to.
	sides := spec.judgedSides()
	var sets []*Set
	for _, s := range families {
		sets = append(sets, s.judged(sides)...)
	}
	rs := &Ruleset{spec: spec, Tables: []*Table{namespaceTable(spec, sets)}}
	for _, ifc := range spec.Interfaces {
		rs.Tables = append(rs.Tables, guardTable(spec, ifc, sets))
	}
	return rs
}

// guarded says that every interface has a guard out of the workload's reach, so that the namespace
// need only judge births.
func (spec Spec) guarded() bool {
	for _, ifc := range spec.Interfaces {
		if ifc.Host == "" {
			return false
		}
	}
	return len(spec.Interfaces) > 0
}

// judges says whether packets of a direction are held against entries: in alert and enforce mode,
// where a policy isolates the side.
func (spec Spec) judges(d policy.Direction) bool {
	return spec.Mode != policy.Learn && spec.side(d).Isolated
}

func (spec Spec) side(d policy.Direction) policy.Side {
	if d == policy.Egress {
		return spec.Sides.Egress
	}
	return spec.Sides.Ingress
}

// judgedSides is what the kernel must hold: nothing of a side that is not judged.
func (spec Spec) judgedSides() policy.Sides {
	var out policy.Sides
	if spec.judges(policy.Egress) {
		out.Egress = spec.Sides.Egress
	}
	if spec.judges(policy.Ingress) {
		out.Ingress = spec.Sides.Ingress
	}
	return out
}

// namespaceTable is the inet table in the workload's namespace.
func namespaceTable(spec Spec, sets []*Set) *Table {
	t := &Table{Place: InWorkload, Family: FamilyINet, Name: TableName, Counters: []string{CounterOverflow, CounterStray}}
	t.Sets = slices.Clone(sets)
	for _, s := range families {
		t.Sets = append(t.Sets, s.remembered()...)
	}
	t.Chains = slices.Clone(namespaceChains(spec))
	t.sort()
	return t
}

// shape is all of a spec that chains depend on. There are few shapes and many workloads, so chains
// are made once; nobody writes to them.
type shape struct {
	mode             policy.Mode
	egress, ingress  bool // judged
	guarded, atGuard bool
}

var chainsOf sync.Map // shape to []*Chain

func (spec Spec) shape() shape {
	return shape{mode: spec.Mode, egress: spec.judges(policy.Egress), ingress: spec.judges(policy.Ingress), guarded: spec.guarded()}
}

// namespaceChains are the chains of the inet table.
func namespaceChains(spec Spec) []*Chain {
	if c, ok := chainsOf.Load(spec.shape()); ok {
		return c.([]*Chain)
	}
	var out []*Chain
	for _, d := range []policy.Direction{policy.Egress, policy.Ingress} {
		out = append(out, baseChain(spec, d))
		for _, s := range families {
			w := ways{site: s, spec: spec, dir: d}
			out = append(out, w.chains()...)
		}
	}
	chainsOf.Store(spec.shape(), out)
	return out
}

// baseChain is where packets of a direction enter. Most of all packets are segments of TCP
// connections that were judged when they were born, so that question comes first.
func baseChain(spec Spec, d policy.Direction) *Chain {
	c := &Chain{Name: "output", Hook: &Hook{Number: hookOutput, Drop: true}}
	if d == policy.Ingress {
		c = &Chain{Name: "input", Hook: &Hook{Number: hookInput, Drop: true}}
	}
	if spec.birthsOnly(d) {
		c.Rules = append(c.Rules, newRule("judged at birth", tcpLater(), accept()))
	}
	c.Rules = append(c.Rules, newRule("", device(d == policy.Egress, "lo"), accept()))
	if d == policy.Egress {
		// A mesh redirects to its proxy: the address is loopback's already, the interface not yet.
		c.Rules = append(c.Rules, newRule("", families[0].loopback(), accept()), newRule("", families[1].loopback(), accept()))
	}
	for _, s := range families {
		w := ways{site: s, spec: spec, dir: d}
		c.Rules = append(c.Rules, newRule("", s.isFamily(), goTo(w.first())))
	}
	return c
}

// birthsOnly says whether segments of TCP connections pass without a question in a direction. Only
// where there is no guard does the namespace look at them, and only where they could belong to a
// connection that no side allows.
func (spec Spec) birthsOnly(d policy.Direction) bool {
	if spec.guarded() || spec.Mode != policy.Enforce {
		return true
	}
	// With an open egress every pair is allowed. What comes in for an isolated egress is remembered,
	// so that it can be answered, even where ingress is open.
	return !spec.judges(policy.Egress)
}

// recordsTCP says that the namespace must remember which TCP connections came in, because it judges
// every segment of the answers.
func (spec Spec) recordsTCP() bool { return !spec.birthsOnly(policy.Ingress) }

func (t *Table) sort() {
	slices.SortFunc(t.Sets, func(a, b *Set) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(t.Chains, func(a, b *Chain) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(t.Counters)
}
