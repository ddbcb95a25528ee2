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
		sets = append(sets, s.judged(spec, sides)...)
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

// judges says whether packets of a direction are held against what the side says: in alert and enforce
// mode, where a policy isolates the side or denies something.
func (spec Spec) judges(d policy.Direction) bool {
	return spec.Mode != policy.Learn && spec.side(d).Judged()
}

// lists says whether a direction is judged and allows only what entries list. One that is judged and
// lists nothing is open but for what it denies.
func (spec Spec) lists(d policy.Direction) bool { return spec.judges(d) && spec.side(d).Isolated }

func (spec Spec) side(d policy.Direction) policy.Side {
	if d == policy.Egress {
		return spec.Sides.Egress
	}
	return spec.Sides.Ingress
}

// judgedSides is what the kernel must hold: nothing of a side that is not judged, no entries of one
// that is open.
func (spec Spec) judgedSides() policy.Sides {
	judged := func(d policy.Direction) policy.Side {
		switch side := spec.side(d); {
		case spec.lists(d):
			return withoutDenied(side)
		case spec.judges(d):
			return policy.Side{Denied: side.Denied, OnDeny: side.OnDeny}
		}
		return policy.Side{}
	}
	return policy.Sides{Egress: judged(policy.Egress), Ingress: judged(policy.Ingress)}
}

// namespaceTable is the inet table in the workload's namespace.
func namespaceTable(spec Spec, sets []*Set) *Table {
	t := &Table{Place: InWorkload, Family: FamilyINet, Name: TableName, Counters: []string{CounterOverflow, CounterStray}}
	t.Sets = slices.Clone(sets)
	for _, s := range families {
		t.Sets = append(t.Sets, s.remembered()...)
		if spec.reads() {
			t.Sets = append(t.Sets, s.resolverSet(spec))
		}
	}
	t.Chains = slices.Clone(namespaceChains(spec))
	t.sort()
	return t
}

// shape is all of a spec that chains depend on. There are few shapes and many workloads, so chains
// are made once; nobody writes to them.
type shape struct {
	mode             policy.Mode
	egress, ingress  sideShape
	guarded, atGuard bool
	redirected       bool
	names            bool
	reads, closed    bool // DNS answers
}

// sideShape is what of a side chains depend on.
type sideShape struct {
	lists           bool
	denies, denies6 denies
	rejects         bool
	blocks, blocks6 bool // the interval set holds something
}

func (spec Spec) shape() shape {
	side := func(d policy.Direction) sideShape {
		out := sideShape{lists: spec.lists(d), denies: spec.denies(d, false), denies6: spec.denies(d, true), rejects: spec.rejects(d)}
		if d == policy.Ingress && out.lists {
			out.blocks, out.blocks6 = hasBlocks(spec.side(d).Entries, families[0]), hasBlocks(spec.side(d).Entries, families[1])
		}
		return out
	}
	return shape{mode: spec.Mode, egress: side(policy.Egress), ingress: side(policy.Ingress), guarded: spec.guarded(),
		redirected: spec.Redirected,
		names:      spec.names(), reads: spec.reads(), closed: spec.AnswersClosed}
}

// shapes bounds how many shapes are remembered; the chains of others are made each time.
const shapes = 512

var chains struct {
	sync.Mutex
	of map[shape][]*Chain
}

func (s shape) chains(build func() []*Chain) []*Chain {
	chains.Lock()
	defer chains.Unlock()
	if c, ok := chains.of[s]; ok {
		return c
	}
	c := build()
	if chains.of == nil {
		chains.of = map[shape][]*Chain{}
	}
	if len(chains.of) < shapes {
		chains.of[s] = c
	}
	return c
}

// namespaceChains are the chains of the inet table.
func namespaceChains(spec Spec) []*Chain {
	return spec.shape().chains(func() []*Chain { return buildNamespaceChains(spec) })
}

func buildNamespaceChains(spec Spec) []*Chain {
	var out []*Chain
	for _, d := range []policy.Direction{policy.Egress, policy.Ingress} {
		out = append(out, baseChain(spec, d))
		for _, s := range families {
			w := ways{site: s, spec: spec, dir: d}
			out = append(out, w.chains()...)
		}
		if spec.rejects(d) {
			out = append(out, rejectChain(spec, d))
		}
	}
	if spec.reads() {
		out = append(out, answersChain(spec))
	}
	return out
}

// baseChain is where packets of a direction enter. Most of all packets are segments of TCP
// connections that were judged when they were born, so that question comes first.
func baseChain(spec Spec, d policy.Direction) *Chain {
	c := &Chain{Name: "output", Hook: &Hook{Number: hookOutput, Drop: true}}
	if d == policy.Ingress {
		c = &Chain{Name: "input", Hook: &Hook{Number: hookInput, Drop: true}}
		if spec.Redirected {
			c = &Chain{Name: arrivalChain, Hook: &Hook{Number: hookPrerouting, Priority: beforeNAT, Drop: true}}
		}
		if spec.reads() {
			c.Rules = append(c.Rules, newRule("", fromPort53(), jumpTo("answers")))
		}
	}
	if spec.birthsOnly(d) {
		c.Rules = append(c.Rules, newRule("judged at birth", tcpLater(), accept()))
	}
	c.Rules = append(c.Rules, newRule("", onLoopback(d == policy.Egress), accept()))
	for _, s := range families {
		w := ways{site: s, spec: spec, dir: d}
		if d == policy.Egress {
			// A mesh redirects to its proxy: the address is loopback's already, the interface not yet.
			c.Rules = append(c.Rules, newRule("", s.loopback(), accept()))
		}
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
	// With an open egress that denies nothing every pair is allowed. What comes in for another egress is
	// remembered, so that it can be answered, even where ingress is open.
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
