package policy

import (
	"cmp"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// cell is a part of all protocols and ports that is treated alike in a block: a range of protocols with
// all their ports, or a range of one protocol's ports (types for ICMP).
type cell struct {
	from, to  uint8 // protocols
	low, high uint16
	admin     slot // the first piece of the admin tier that is about it
	rest      slot // the first of all others; at least the default
	covered   *element
	denied    bool     // a block around it is denied in the kernel
	shut      *element // what denies it to names
}

// slot is who decides.
type slot struct {
	rank   int32
	action Action
	rule   string
}

func (c *cell) meet(p *piece) {
	s := &c.rest
	if p.admin {
		s = &c.admin
	}
	if p.rank < s.rank {
		*s = slot{p.rank, p.action, p.rule}
	}
}

func (c *cell) deciding() *slot {
	if c.admin.rank < rankLast && c.admin.action != ActionPass {
		return &c.admin
	}
	return &c.rest
}

// rule names who decides: where it is the default, the rule that passed on to it.
func (c *cell) rule() string {
	passed := ""
	if c.admin.rank < rankLast {
		passed = c.admin.rule
	}
	return cmp.Or(c.deciding().rule, passed, RuleOpen)
}

// allowed: a pass of the baseline tier leads to the default, which is open there.
func (c *cell) allowed() bool { return c.deciding().action != ActionDeny }

// whole is all protocols and ports, with the default.
func whole(open bool, base *element) []cell {
	c := cell{to: 255, high: 65535, admin: slot{rank: rankLast}, rest: slot{rank: rankLast, action: ActionDeny}}
	if open {
		c.rest.action, c.covered = ActionAllow, base
	}
	return []cell{c}
}

// cuts are the ports at which pieces begin or end, by protocol, sorted.
type cuts []cut

type cut struct {
	protocol uint8
	port     uint16 // a part begins here; 0 is none
}

func cutsOf(pieces []piece) cuts {
	var out cuts
	for i := range pieces {
		p := &pieces[i]
		if p.protocol == identity.AnyProtocol {
			continue
		}
		out = append(out, cut{uint8(p.protocol), p.low})
		if p.high < 65535 {
			out = append(out, cut{uint8(p.protocol), p.high + 1})
		}
	}
	slices.SortFunc(out, func(a, b cut) int { return cmp.Or(int(a.protocol)-int(b.protocol), int(a.port)-int(b.port)) })
	return slices.Compact(out)
}

// refine splits cells at the cuts.
func refine(cells []cell, at cuts, out []cell) []cell {
	for _, c := range cells {
		for len(at) > 0 && at[0].protocol < c.from {
			at = at[1:]
		}
		rest := at
		for c.from < c.to && len(rest) > 0 && rest[0].protocol <= c.to {
			x := rest[0].protocol
			if x > c.from {
				before := c
				before.to = x - 1
				out = append(out, before)
			}
			one := c
			one.from, one.to = x, x
			for len(rest) > 0 && rest[0].protocol == x {
				out = one.cutAt(rest[0].port, out)
				rest = rest[1:]
			}
			out = append(out, one)
			if x == c.to {
				c.from, c.to = 1, 0 // nothing is left
				break
			}
			c.from = x + 1
		}
		if c.from > c.to {
			continue
		}
		for len(rest) > 0 && c.from == c.to && rest[0].protocol == c.from {
			out = c.cutAt(rest[0].port, out)
			rest = rest[1:]
		}
		out = append(out, c)
	}
	return out
}

// cutAt takes the part before a port off.
func (c *cell) cutAt(port uint16, out []cell) []cell {
	if port <= c.low || port > c.high {
		return out
	}
	before := *c
	before.high = port - 1
	c.low = port
	return append(out, before)
}

// apply lets a piece meet the cells that it is about. They have been cut at its ends.
func apply(cells []cell, p *piece) {
	if p.protocol == identity.AnyProtocol {
		for i := range cells {
			cells[i].meet(p)
		}
		return
	}
	for i := firstAt(cells, uint8(p.protocol), p.low); i < len(cells); i++ {
		c := &cells[i]
		if c.from != uint8(p.protocol) || c.low > p.high {
			return
		}
		c.meet(p)
	}
}

// firstAt is the index of the cell that holds a protocol's port, or would come after it.
func firstAt(cells []cell, protocol uint8, port uint16) int {
	i, _ := slices.BinarySearchFunc(cells, 0, func(c cell, _ int) int {
		if c.to < protocol || c.to == protocol && c.from == protocol && c.high < port {
			return -1
		}
		return 1
	})
	return i
}

// touched copies those cells that pieces are about.
func touched(cells []cell, pieces []piece, out []cell) []cell {
	next := 0
	for i := range pieces { // by protocol and port
		p := &pieces[i]
		if p.protocol == identity.AnyProtocol {
			return append(out[:0], cells...)
		}
		for j := max(next, firstAt(cells, uint8(p.protocol), p.low)); j < len(cells); j++ {
			c := &cells[j]
			if c.from > uint8(p.protocol) || c.from == uint8(p.protocol) && c.low > p.high {
				break
			}
			out = append(out, *c)
			next = j + 1
		}
	}
	return out
}

// ports is the range of protocols and ports as an entry has it; false: nobody's, as protocol 0, or a
// message type that does not exist.
func (c *cell) entry() (Entry, bool) {
	switch {
	case c.from == 0 && c.to == 255:
		return Entry{}, true
	case c.from < c.to:
		return Entry{Protocol: identity.Protocol(c.from), EndProtocol: identity.Protocol(c.to)}, true
	}
	p := identity.Protocol(c.from)
	return Entry{Protocol: p, Port: c.low, EndPort: c.high}, c.from != 0 && (!p.IsICMP() || c.low <= 255)
}

// follows says whether b continues a, so that one entry says both.
func (a *cell) follows(b *cell) bool {
	full := a.low == 0 && a.high == 65535 && b.low == 0 && b.high == 65535
	if full {
		return int(a.to)+1 == int(b.from)
	}
	return a.from == a.to && b.from == b.to && a.from == b.from && int(a.high)+1 == int(b.low)
}
