package reach

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Change is a difference in who may reach whom: between two services, or a service and an end that is
// none.
type Change struct {
	Client, Server string
	Allowed        bool   // newly allowed; else newly denied
	What           string // "TCP/80, UDP/53", "everything but TCP/22", "everything"
	Family         string // "IPv4" or "IPv6" where it holds in one of two families only
	Rule           string // the rule of the second set that makes the difference; empty: the default does
	Reason         string // a sentence
	Pairs, Of      int    // workload pairs (or workloads, where the other end is none) it holds for, of those that there are

	Example policy.Connection // one of what changed
}

// Difference is all of it.
type Difference struct {
	Changes []Change
	Classes int  // kinds of workloads that the sets can tell apart
	Cut     bool // there are more changes than fit
}

// maxChanges bounds what is told.
const maxChanges = 100_000

// Diff tells how two sets differ in what they allow among the workloads of a view, their nodes, and
// everybody else. Judge is what a set says of a connection, and gives reasons only. Changes are sorted:
// by client, server, and denied before allowed.
func Diff(view *identity.View, from, to *policy.Set, judge func(*policy.Set, policy.Connection) policy.Decision) Difference {
	v := newVocabulary(view, from, to)
	d := &differ{view: view, sets: [2]*policy.Set{from, to}, judge: judge, workloads: v.workloads(), others: v.others(),
		rows: map[rowKey]*Change{}, totals: map[[2]string]int{}}
	for _, c := range d.workloads {
		d.compile(c)
	}
	d.pairs()
	return d.result()
}

type differ struct {
	view      *identity.View
	sets      [2]*policy.Set
	judge     func(*policy.Set, policy.Connection) policy.Decision
	workloads []*class
	others    []*class
	rows      map[rowKey]*Change
	totals    map[[2]string]int // by names of client and server: how many pairs there are
	cut       bool
}

type rowKey struct {
	client, server, what, family string
	allowed                      bool
}

func (d *differ) compile(c *class) {
	for i, set := range d.sets {
		s := set.Entries(d.view, c.members[0])
		c.sides[i] = &sides{Sides: s}
	}
	a, b := c.sides[0], c.sides[1]
	c.changed = [2]bool{!same(a.Egress, b.Egress), !same(a.Ingress, b.Ingress)}
	for _, s := range c.sides {
		s.egress, s.ingress = newTable(s.Egress), newTable(s.Ingress)
	}
}

func (d *differ) pairs() {
	for _, c := range d.workloads {
		for _, s := range d.workloads {
			d.among(c, s)
		}
		for _, o := range d.others {
			d.outwards(c, o)
			d.inwards(o, c)
		}
		d.names(c)
	}
}

// among compares what two classes of workloads may do. Within a class it is two of its members that
// count: a workload's traffic with itself is never judged.
func (d *differ) among(c, s *class) {
	server, pairs := s.members[0], len(c.members)*len(s.members)
	if c == s {
		if len(c.members) < 2 {
			return
		}
		server, pairs = c.members[1], len(c.members)*(len(c.members)-1)
	}
	d.totals[[2]string{c.name, s.name}] += pairs
	if !c.changed[0] && !s.changed[1] {
		return
	}
	client := c.members[0]
	ca, sa := perFamily(client.Addrs), perFamily(server.Addrs)
	d.compare(c.name, s.name, pairs, ca, sa, func(set, f int) region { return between(c, s, set, ca[f], sa[f]) }, func(f int) policy.Connection {
		return policy.Connection{Client: podAt(client, ca[f]), Server: podAt(server, sa[f])}
	})
}

// between is what a set allows from c's first member to an address of s. Both sides are compiled for the
// first members: within one class the second, which has the address to, is whom its ingress is asked
// about.
func between(c, s *class, set int, from, to netip.Addr) region {
	if c == s {
		from = to
	}
	return c.sides[set].egress.at(to).and(s.sides[set].ingress.at(from))
}

func podAt(w *identity.Workload, a netip.Addr) identity.Peer {
	return identity.Peer{Kind: identity.Pod, Addr: a, Workload: w}
}

// outwards compares what a class may reach of an end that no policy selects.
func (d *differ) outwards(c, o *class) {
	name := o.nameFor(c.members[0])
	d.totals[[2]string{c.name, name}] += len(c.members)
	if !c.changed[0] {
		return
	}
	w := c.members[0]
	ca, oa := perFamily(w.Addrs), perFamily(o.addrs)
	d.compare(c.name, name, len(c.members), ca, oa, func(set, f int) region {
		return c.sides[set].egress.at(oa[f])
	}, func(f int) policy.Connection {
		return policy.Connection{Client: podAt(w, ca[f]), Server: d.view.Peer(oa[f])}
	})
}

// inwards compares who that no policy selects may reach a class. A resolver opens no connections.
func (d *differ) inwards(o, c *class) {
	if o.name == DNS {
		return
	}
	name := o.nameFor(c.members[0])
	d.totals[[2]string{name, c.name}] += len(c.members)
	if !c.changed[1] {
		return
	}
	w := c.members[0]
	oa, ca := perFamily(o.addrs), perFamily(w.Addrs)
	d.compare(name, c.name, len(c.members), oa, ca, func(set, f int) region {
		return c.sides[set].ingress.at(oa[f])
	}, func(f int) policy.Connection {
		return policy.Connection{Client: d.view.Peer(oa[f]), Server: podAt(w, ca[f])}
	})
}

// nameFor tells a workload's own node from others.
func (c *class) nameFor(w *identity.Workload) string {
	if c.node != "" && c.node == w.Node {
		return OwnNode
	}
	return c.name
}

var families = [2]string{"IPv4", "IPv6"}

// compare subtracts what the sets allow, in each family that both ends have.
func (d *differ) compare(client, server string, pairs int, from, to [2]netip.Addr, allows func(set, family int) region, ask func(family int) policy.Connection) {
	var opened, closed [2]region
	both := true
	for f := range families {
		if !from[f].IsValid() || !to[f].IsValid() {
			both = false
			continue
		}
		was, will := allows(0, f), allows(1, f)
		opened[f], closed[f] = will.without(was), was.without(will)
	}
	for _, x := range []struct {
		allowed bool
		regions [2]region
	}{{false, closed}, {true, opened}} {
		switch {
		case len(x.regions[0])+len(x.regions[1]) == 0:
		case both && alike(x.regions):
			d.add(rowKey{client, server, union(slices.Concat(x.regions[0], x.regions[1])).String(), "", x.allowed}, pairs, x.regions[0], 0, ask)
		default:
			for f, r := range x.regions {
				family := ""
				if both {
					family = families[f]
				}
				if len(r) > 0 {
					d.add(rowKey{client, server, r.String(), family, x.allowed}, pairs, r, f, ask)
				}
			}
		}
	}
}

// alike says whether both families have the same, but for ICMP, which each has its own of.
func alike(r [2]region) bool {
	return r[0].without(icmp4).equal(r[1].without(icmp6)) && len(r[0].and(icmp4)) == len(r[1].and(icmp6))
}

func (d *differ) add(key rowKey, pairs int, r region, f int, ask func(int) policy.Connection) {
	if row := d.rows[key]; row != nil {
		row.Pairs += pairs
		return
	}
	if len(d.rows) >= maxChanges {
		d.cut = true
		return
	}
	q := ask(f)
	q.Protocol, q.Port = r.sample()
	c := &Change{Client: key.client, Server: key.server, Allowed: key.allowed, What: key.what, Family: key.family, Pairs: pairs, Example: q}
	c.Rule, c.Reason = d.reason(q, key.allowed)
	d.rows[key] = c
}

// reason is the sentence of the side whose verdict changed, as the second set has it.
func (d *differ) reason(q policy.Connection, allowed bool) (rule, reason string) {
	was, will := d.judge(d.sets[0], q), d.judge(d.sets[1], q)
	for _, s := range [][2]policy.SideDecision{{was.Egress, will.Egress}, {was.Ingress, will.Ingress}} {
		if s[0].Verdict == s[1].Verdict {
			continue
		}
		if (s[1].Verdict == policy.Allow) == allowed {
			return s[1].Rule, s[1].Reason
		}
	}
	return "", ""
}

// names compares the DNS names that a class may reach.
func (d *differ) names(c *class) {
	if !c.changed[0] {
		return
	}
	was, will := namesOf(c.sides[0].Egress), namesOf(c.sides[1].Egress)
	for name := range was {
		d.name(c, name, was[name].without(will[name]), false, c.sides[1].Egress)
	}
	for name := range will {
		d.name(c, name, will[name].without(was[name]), true, c.sides[1].Egress)
	}
}

func namesOf(s policy.Side) map[string]region {
	out := map[string]region{}
	for _, n := range s.Names {
		e := policy.Entry{Protocol: n.Protocol, Port: n.Port, EndPort: n.EndPort}
		out[n.Name] = append(out[n.Name], spanOf(e))
	}
	for name, spans := range out {
		out[name] = union(spans)
	}
	return out
}

func (d *differ) name(c *class, name string, r region, allowed bool, side policy.Side) {
	if len(r) == 0 {
		return
	}
	server := "name " + name
	key := rowKey{c.name, server, r.String(), "", allowed}
	row := d.rows[key]
	if row == nil {
		row = &Change{Client: c.name, Server: server, Allowed: allowed, What: key.what, Reason: "no rule names it any more"}
		for _, n := range side.Names {
			if allowed && n.Name == name {
				row.Rule, row.Reason = n.Rule, fmt.Sprintf("%s allows %s", n.Rule, name)
			}
		}
		d.rows[key] = row
	}
	row.Pairs += len(c.members)
	d.totals[[2]string{c.name, server}] = 0 // every workload of the service, counted below
}

func (d *differ) result() Difference {
	out := Difference{Classes: len(d.workloads), Cut: d.cut}
	members := map[string]int{}
	for _, c := range d.workloads {
		members[c.name] += len(c.members)
	}
	for _, row := range d.rows {
		row.Of = d.totals[[2]string{row.Client, row.Server}]
		if row.Of == 0 {
			row.Of = members[row.Client]
		}
		out.Changes = append(out.Changes, *row)
	}
	slices.SortFunc(out.Changes, func(a, b Change) int {
		return cmp.Or(strings.Compare(a.Client, b.Client), strings.Compare(a.Server, b.Server), boolean(a.Allowed, b.Allowed),
			strings.Compare(a.What, b.What), strings.Compare(a.Family, b.Family))
	})
	return out
}

func boolean(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
