package firewall

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Learned is what a workload may do with one address because of the names that it has.
type Learned struct {
	Addr    netip.Addr
	Entries []policy.Entry // whose peer is Addr; none: nothing any more
	Until   time.Time      // the daemon takes it back then; the kernel does nameSpare later if it does not
}

// nameState is what a Namespace knows of its sets of names.
type nameState struct {
	byAddr map[netip.Addr]*heldName
	sure   bool // the sets hold this and nothing else
}

// heldName is one address in the sets.
type heldName struct {
	entries  []policy.Entry
	elements map[string][]Element // by set
	ends     time.Time            // in the kernel
}

// Learn puts what is learned in force, or takes it back where an address has no entries: in the guards
// first and then in the namespace, the other way around for what is taken back, whose connections end.
// When it returns, the first packet passes. What the kernel holds long enough already is not written.
//
// Before the first Apply, and while policy allows nothing by name, it is only remembered.
func (ns *Namespace) Learn(list []Learned) error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if err := ns.ready(); err != nil {
		return err
	}
	c := ns.remember(list, time.Now())
	if ns.applied == nil || !ns.applied.spec.names() || ns.unsure {
		ns.names.sure = false
		return nil // the next Apply writes them
	}
	if !ns.names.sure {
		return ns.refillNames()
	}
	err := ns.changeNames(c)
	if errors.Is(err, unix.ENOENT) || again(err) {
		// An element ended before its time, or the answer was lost: begin anew.
		return ns.refillNames()
	}
	if err != nil {
		ns.unsure, ns.names.sure = true, false
	}
	return err
}

// Learned lists the addresses that Learn holds open, sorted.
func (ns *Namespace) Learned() []netip.Addr {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	return slices.SortedFunc(maps.Keys(ns.names.byAddr), netip.Addr.Compare)
}

// nameChange is a change of the sets of names, in whatever table.
type nameChange struct {
	op      Op
	set     string
	list    []Element
	timeout time.Duration
}

// nameChanges are what comes or lasts longer, and what goes.
type nameChanges struct {
	more, less []nameChange
	shrinks    bool // some right goes
}

// remember works out what changes.
func (ns *Namespace) remember(list []Learned, now time.Time) (c nameChanges) {
	if ns.names.byAddr == nil {
		ns.names.byAddr = map[netip.Addr]*heldName{}
	}
	for _, l := range list {
		old := ns.names.byAddr[l.Addr]
		if old == nil {
			old = &heldName{}
		}
		h := &heldName{l.Entries, nameElements(l.Addr, l.Entries), old.ends}
		if ns.names.byAddr[l.Addr] = h; len(h.elements) == 0 {
			delete(ns.names.byAddr, l.Addr)
		}
		longer := l.Until.Add(nameSpare / 2).After(old.ends)
		if longer {
			h.ends = l.Until.Add(nameSpare)
		}
		c.add(old, h, longer, max(h.ends.Sub(now), time.Second))
	}
	return c
}

// add tells apart what one address has in the sets before and after. Elements that stay, but longer,
// are taken out and put in again, which packets do not notice: it is one transaction.
func (c *nameChanges) add(old, now *heldName, longer bool, timeout time.Duration) {
	sets := slices.Collect(maps.Keys(old.elements))
	sets = append(sets, slices.Collect(maps.Keys(now.elements))...)
	slices.Sort(sets)
	for _, set := range slices.Compact(sets) {
		gone, come := diffElements(old.elements[set], now.elements[set])
		c.shrinks = c.shrinks || len(gone) > 0
		del := func(list *[]nameChange, e []Element) {
			if len(e) > 0 {
				*list = append(*list, nameChange{op: DeleteElements, set: set, list: e})
			}
		}
		switch {
		case strings.Contains(set, "_nets") || strings.Contains(set, "_icmp"):
			del(&c.more, gone) // what comes may overlap with it
		default:
			del(&c.less, gone)
		}
		if longer {
			stay := slices.DeleteFunc(slices.Clone(now.elements[set]), func(e Element) bool { return slices.Contains(come, e) })
			del(&c.more, stay)
			come = now.elements[set]
		}
		if len(come) > 0 {
			c.more = append(c.more, nameChange{AddElements, set, come, timeout})
		}
	}
}

// nameTables are the tables that have sets of names, guards first.
func (ns *Namespace) nameTables() (guards, inside []*Table) {
	for _, t := range ns.have.Tables {
		switch {
		case t.set(namedPeers+"4") == nil:
		case t.Family == FamilyNetdev:
			guards = append(guards, t)
		default:
			inside = append(inside, t)
		}
	}
	return guards, inside
}

func inTables(tables []*Table, list []nameChange) []Change {
	var out []Change
	for _, t := range tables {
		for _, c := range list {
			if s := t.set(c.set); s != nil {
				out = append(out, Change{Op: c.op, Table: t, Name: c.set, Set: s, Elements: c.list, timeout: c.timeout})
			}
		}
	}
	return out
}

func (ns *Namespace) changeNames(c nameChanges) error {
	guards, inside := ns.nameTables()
	if err := ns.commitAll(inTables(guards, c.more), inTables(inside, c.more), inTables(inside, c.less)); err != nil {
		return err
	}
	revokes := c.shrinks && ns.applied.spec.Mode == policy.Enforce
	if revokes {
		if err := ns.revoke(ns.applied.spec, inside); err != nil {
			return err
		}
	}
	if err := ns.commit(inTables(guards, c.less)); err != nil || !revokes {
		return err
	}
	return ns.forget(guards, ns.applied.spec)
}

// refillNames makes the sets hold what is remembered and nothing else, in one transaction a place.
func (ns *Namespace) refillNames() error {
	guards, inside := ns.nameTables()
	err := ns.commitAll(ns.filledNames(guards, true), ns.filledNames(inside, true))
	ns.names.sure = err == nil
	if err != nil {
		ns.unsure = true
		return err
	}
	if spec := ns.applied.spec; spec.Mode == policy.Enforce {
		return ns.revoke(spec, ns.placed(ns.applied).Tables)
	}
	return nil
}

// filledNames are the changes that fill the sets of names of tables, of which only those are touched
// that have some. flush empties them first.
func (ns *Namespace) filledNames(tables []*Table, flush bool) []Change {
	var out []Change
	now := time.Now()
	for _, t := range tables {
		for _, s := range t.Sets {
			if flush && nameSet(s.Name) {
				out = append(out, Change{Op: FlushSet, Table: t, Name: s.Name, Set: s})
			}
		}
		for _, h := range ns.names.byAddr {
			var list []nameChange
			for set, elements := range h.elements {
				list = append(list, nameChange{AddElements, set, elements, max(h.ends.Sub(now), time.Second)})
			}
			out = append(out, inTables([]*Table{t}, list)...)
		}
	}
	return out
}

// nameSet says whether Learn fills a set.
func nameSet(name string) bool {
	return strings.Contains(name, namesSuffix) || strings.HasPrefix(name, namedPeers)
}

// withNames adds to changes what sets of names that come to be must hold from the first packet on.
func (ns *Namespace) withNames(changes []Change) []Change {
	var made []*Table
	for _, c := range changes {
		if c.Op == AddSet && c.Name == namedPeers+"4" {
			made = append(made, c.Table)
		}
	}
	return append(changes, ns.filledNames(made, false)...)
}

// rights are those of a spec with what is learned by name.
func (ns *Namespace) rights(spec Spec) rights {
	if spec.names() {
		side := &spec.Sides.Egress
		side.Entries = slices.Clone(side.Entries)
		for _, h := range ns.names.byAddr {
			side.Entries = append(side.Entries, h.entries...)
		}
	}
	return newRights(spec)
}
