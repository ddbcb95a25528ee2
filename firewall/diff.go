package firewall

import (
	"fmt"
	"slices"
	"time"
)

// Op is what a change does. The order of the constants is the order in which the changes of a table
// are carried out: what is referred to comes before what refers to it.
type Op uint8

const (
	DeleteTable Op = iota + 1
	CreateTable
	AddCounter
	AddSet
	DeleteElements
	AddElements
	FlushSet
	AddChain
	FlushChain
	AddRules
	DeleteChain
	DeleteSet
	DeleteCounter
)

// Change is one step from what is there to what is wanted.
type Change struct {
	Op       Op
	Table    *Table
	Name     string // of the counter, set or chain
	Set      *Set
	Chain    *Chain
	Elements []Element

	timeout time.Duration // of the elements, for a dynamic set
}

// String says it in a line.
func (c Change) String() string {
	t := fmt.Sprintf("table %s %s", c.Table.Family, c.Table.Name)
	switch c.Op {
	case DeleteTable:
		return t + ": delete"
	case CreateTable:
		return t + ": create"
	case AddCounter:
		return fmt.Sprintf("%s: add counter %s", t, c.Name)
	case AddSet:
		return fmt.Sprintf("%s: add set %s", t, c.Name)
	case DeleteElements:
		return fmt.Sprintf("%s: set %s: delete %s", t, c.Name, c.elementText())
	case AddElements:
		return fmt.Sprintf("%s: set %s: add %s", t, c.Name, c.elementText())
	case FlushSet:
		return fmt.Sprintf("%s: flush set %s", t, c.Name)
	case AddChain:
		return fmt.Sprintf("%s: add chain %s", t, c.Name)
	case FlushChain:
		return fmt.Sprintf("%s: chain %s: remove its rules", t, c.Name)
	case AddRules:
		return fmt.Sprintf("%s: chain %s: add %d rules", t, c.Name, len(c.Chain.Rules))
	case DeleteChain:
		return fmt.Sprintf("%s: delete chain %s", t, c.Name)
	case DeleteSet:
		return fmt.Sprintf("%s: delete set %s", t, c.Name)
	case DeleteCounter:
		return fmt.Sprintf("%s: delete counter %s", t, c.Name)
	}
	return t
}

func (c Change) elementText() string {
	first := c.Set.Key.text(c.Elements[0])
	if c.Elements[0] == catchall {
		first = "*"
	}
	if n := len(c.Elements); n > 1 {
		return fmt.Sprintf("%d elements, %s first", n, first)
	}
	return first
}

// catchall stands for the element that matches every key. We never write one; somebody else may.
var catchall = Element{Key: "*"}

// Diff tells how to get from one ruleset to the other, in the order in which it must be done. It is
// pure; no change means nothing to do. have may be nil.
//
// Only elements are touched where only elements differ. A chain whose rules differ has them replaced
// in the same transaction; its hook stays registered. A table that cannot be brought there by
// increments (a set of another type, a hook or policy that is not ours) is deleted and made anew,
// also in one transaction.
func Diff(have, want *Ruleset) []Change {
	var out []Change
	if have != nil {
		for _, t := range have.Tables {
			if want.table(t) == nil {
				out = append(out, Change{Op: DeleteTable, Table: t})
			}
		}
	}
	walked := differences{}
	for _, t := range want.Tables {
		out = append(out, walked.diffTable(have.table(t), t)...)
	}
	return out
}

// differences remembers what two sets differ in: the namespace's table and its guards hold the same ones, and
// each may have tens of thousands of elements.
type differences map[[2]*Set]struct{ del, add []Element }

func (d differences) elements(have, want *Set) (del, add []Element) {
	k := [2]*Set{have, want}
	e, ok := d[k]
	if !ok {
		e.del, e.add = diffElements(have.Elements, want.Elements)
		d[k] = e
	}
	return e.del, e.add
}

func (d differences) diffTable(have, want *Table) []Change {
	var out []Change
	if have != nil && have.mismatch(want) != "" {
		out = append(out, Change{Op: DeleteTable, Table: have})
		have = nil
	}
	if have == nil {
		out = append(out, Change{Op: CreateTable, Table: want})
		have = &Table{}
	}
	for _, name := range want.Counters {
		if !slices.Contains(have.Counters, name) {
			out = append(out, Change{Op: AddCounter, Table: want, Name: name})
		}
	}
	for _, name := range have.Counters {
		if !slices.Contains(want.Counters, name) {
			out = append(out, Change{Op: DeleteCounter, Table: want, Name: name})
		}
	}
	out = append(out, d.diffSets(have, want)...)
	out = append(out, diffChains(have, want)...)
	slices.SortStableFunc(out, func(a, b Change) int { return int(a.Op) - int(b.Op) })
	return out
}

// mismatch says what of a table cannot be changed in place.
func (t *Table) mismatch(want *Table) string {
	if t.foreign != "" {
		return t.foreign
	}
	for _, s := range want.Sets {
		if h := t.set(s.Name); h != nil && !h.sameKind(s) {
			return "set " + s.Name + " is of another type"
		}
	}
	for _, c := range want.Chains {
		h := t.chain(c.Name)
		if h != nil && (h.Hook == nil) != (c.Hook == nil) || h != nil && h.Hook != nil && *h.Hook != *c.Hook {
			return "chain " + c.Name + " has another hook or policy"
		}
	}
	return ""
}

func (s *Set) sameKind(o *Set) bool {
	return slices.Equal(s.Key, o.Key) && s.Interval == o.Interval && s.Dynamic == o.Dynamic && s.Size == o.Size &&
		s.Timeout == o.Timeout && s.Counted == o.Counted && s.Comment == o.Comment
}

func (d differences) diffSets(have, want *Table) []Change {
	var out []Change
	for _, s := range want.Sets {
		h := have.set(s.Name)
		if h == nil {
			out = append(out, Change{Op: AddSet, Table: want, Name: s.Name, Set: s})
			h = &Set{}
		}
		if s.filled() {
			continue
		}
		del, add := d.elements(h, s)
		if len(del) > 0 {
			out = append(out, Change{Op: DeleteElements, Table: want, Name: s.Name, Set: s, Elements: del})
		}
		if len(add) > 0 {
			out = append(out, Change{Op: AddElements, Table: want, Name: s.Name, Set: s, Elements: add})
		}
	}
	for _, s := range have.Sets {
		if want.set(s.Name) == nil {
			out = append(out, Change{Op: DeleteSet, Table: want, Name: s.Name, Set: s})
		}
	}
	return out
}

// diffElements walks two sorted lists.
func diffElements(have, want []Element) (del, add []Element) {
	if len(have) > 0 && len(have) == len(want) && &have[0] == &want[0] {
		return nil, nil
	}
	for len(have) > 0 && len(want) > 0 {
		c := 0
		if have[0] != want[0] {
			c = have[0].compare(want[0])
		}
		switch {
		case c == 0:
			have, want = have[1:], want[1:]
		case c < 0:
			del, have = append(del, have[0]), have[1:]
		default:
			add, want = append(add, want[0]), want[1:]
		}
	}
	return append(del, have...), append(add, want...)
}

func diffChains(have, want *Table) []Change {
	var out []Change
	judges := false // the rules of a chain that was there differ
	for _, c := range want.Chains {
		h := have.chain(c.Name)
		if h == nil {
			out = append(out, Change{Op: AddChain, Table: want, Name: c.Name, Chain: c})
			h = &Chain{}
		} else {
			judges = judges || !slices.EqualFunc(h.Rules, c.Rules, Rule.same)
		}
		if slices.EqualFunc(h.Rules, c.Rules, Rule.same) {
			continue
		}
		if len(h.Rules) > 0 {
			out = append(out, Change{Op: FlushChain, Table: want, Name: c.Name, Chain: c})
		}
		if len(c.Rules) > 0 {
			out = append(out, Change{Op: AddRules, Table: want, Name: c.Name, Chain: c})
		}
	}
	for _, c := range have.Chains {
		if want.chain(c.Name) == nil {
			// Its rules must go before the chains and sets they refer to.
			out = append(out, Change{Op: FlushChain, Table: want, Name: c.Name, Chain: c},
				Change{Op: DeleteChain, Table: want, Name: c.Name, Chain: c})
			judges = true
		}
	}
	if judges {
		out = append(out, forgetDenied(have, want)...)
	}
	return out
}

// forgetDenied empties what folds repeats: what was let through with an alert is news when it is
// dropped.
func forgetDenied(have, want *Table) []Change {
	var out []Change
	for _, s := range want.Sets {
		if s.Dynamic && s.Size == DeniedSize && have.set(s.Name) != nil {
			out = append(out, Change{Op: FlushSet, Table: want, Name: s.Name, Set: s})
		}
	}
	return out
}
