package firewall

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Attributes and values that the syscall package does not know (uapi/linux/netfilter/nf_tables.h).
const (
	tableOwner   = 0x2 // NFT_TABLE_F_OWNER, kernel 5.12
	tablePersist = 0x4 // NFT_TABLE_F_PERSIST, kernel 6.9

	nftaTableOwner = 7
	nftaSetExpr    = 17
	nftaSetExprs   = 18

	setEval   = 0x20 // NFT_SET_EVAL: packets may add elements
	setConcat = 0x80 // NFT_SET_CONCAT

	elemCatchall = 2 // NFT_SET_ELEM_CATCHALL

	udataRuleComment = 0 // libnftnl/include/libnftnl/udata.h
	udataSetComment  = 7
)

// An attribute list is limited to 64 KiB, and what is longer is cut without an error.
const (
	chunkElements = 1000
	chunkBytes    = 48 << 10
)

// encode appends the change to a batch. create tells table flags for a table that is made.
func (c Change) encode(b *batch, flags uint32) {
	t := c.Table
	switch c.Op {
	case CreateTable:
		b.newTable(t, flags)
	case DeleteTable:
		b.add(unix.NFT_MSG_DELTABLE, 0, t.Family, c.String(), func(a *attrs) { a.name(unix.NFTA_TABLE_NAME, t.Name) })
	case AddCounter:
		b.add(unix.NFT_MSG_NEWOBJ, unix.NLM_F_CREATE, t.Family, c.String(), func(a *attrs) {
			a.name(unix.NFTA_OBJ_TABLE, t.Name)
			a.name(unix.NFTA_OBJ_NAME, c.Name)
			a.u32(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
			a.nest(unix.NFTA_OBJ_DATA, func() {})
		})
	case DeleteCounter:
		b.add(unix.NFT_MSG_DELOBJ, 0, t.Family, c.String(), func(a *attrs) {
			a.name(unix.NFTA_OBJ_TABLE, t.Name)
			a.name(unix.NFTA_OBJ_NAME, c.Name)
			a.u32(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
		})
	case AddSet:
		b.newSet(t, c.Set, uint32(len(b.labels)), c.String())
	case DeleteSet:
		b.add(unix.NFT_MSG_DELSET, 0, t.Family, c.String(), func(a *attrs) {
			a.name(unix.NFTA_SET_TABLE, t.Name)
			a.name(unix.NFTA_SET_NAME, c.Name)
		})
	case FlushSet:
		b.add(unix.NFT_MSG_DELSETELEM, 0, t.Family, c.String(), func(a *attrs) {
			a.name(unix.NFTA_SET_ELEM_LIST_TABLE, t.Name)
			a.name(unix.NFTA_SET_ELEM_LIST_SET, c.Name)
		})
	case AddElements:
		b.elements(t, c.Set, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, c.Elements, c.timeout, c.String())
	case DeleteElements:
		b.elements(t, c.Set, unix.NFT_MSG_DELSETELEM, 0, c.Elements, 0, c.String())
	case AddChain:
		b.newChain(t, c.Chain, c.String())
	case DeleteChain:
		b.add(unix.NFT_MSG_DELCHAIN, 0, t.Family, c.String(), func(a *attrs) {
			a.name(unix.NFTA_CHAIN_TABLE, t.Name)
			a.name(unix.NFTA_CHAIN_NAME, c.Name)
		})
	case FlushChain:
		b.add(unix.NFT_MSG_DELRULE, 0, t.Family, c.String(), func(a *attrs) {
			a.name(unix.NFTA_RULE_TABLE, t.Name)
			a.name(unix.NFTA_RULE_CHAIN, c.Name)
		})
	case AddRules:
		for _, r := range c.Chain.Rules {
			b.newRule(t, c.Chain, r)
		}
	}
}

// newTable makes the table, or takes over one that is there and has no owner.
func (b *batch) newTable(t *Table, flags uint32) {
	label := fmt.Sprintf("table %s %s", t.Family, t.Name)
	b.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, t.Family, label, func(a *attrs) {
		a.name(unix.NFTA_TABLE_NAME, t.Name)
		a.u32(unix.NFTA_TABLE_FLAGS, flags)
	})
}

func (s *Set) flags() uint32 {
	var f uint32
	if s.Interval {
		f |= unix.NFT_SET_INTERVAL
	}
	if len(s.Key) > 1 {
		f |= setConcat
	}
	if s.Dynamic {
		f |= setEval
	}
	if s.Timeout > 0 {
		f |= unix.NFT_SET_TIMEOUT
	}
	return f
}

func (b *batch) newSet(t *Table, s *Set, id uint32, label string) {
	b.add(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE|unix.NLM_F_EXCL, t.Family, label, func(a *attrs) {
		a.name(unix.NFTA_SET_TABLE, t.Name)
		a.name(unix.NFTA_SET_NAME, s.Name)
		a.u32(unix.NFTA_SET_ID, id)
		a.u32(unix.NFTA_SET_FLAGS, s.flags())
		a.u32(unix.NFTA_SET_KEY_TYPE, s.Key.number())
		a.u32(unix.NFTA_SET_KEY_LEN, uint32(s.Key.size()))
		if s.Timeout > 0 {
			a.u64(unix.NFTA_SET_TIMEOUT, uint64(s.Timeout/time.Millisecond))
		}
		if s.Size > 0 || len(s.Key) > 1 {
			a.nest(unix.NFTA_SET_DESC, func() { s.describe(a) })
		}
		if s.Counted {
			a.nest(nftaSetExpr, func() {
				a.name(unix.NFTA_EXPR_NAME, "counter")
				a.nest(unix.NFTA_EXPR_DATA, func() {})
			})
		}
		if s.Comment != "" {
			a.bytes(unix.NFTA_SET_USERDATA, comment(udataSetComment, s.Comment))
		}
	})
}

// describe writes the set's bound and the length of each part of its key.
func (s *Set) describe(a *attrs) {
	if s.Size > 0 {
		a.u32(unix.NFTA_SET_DESC_SIZE, s.Size)
	}
	if len(s.Key) < 2 {
		return
	}
	const nftaSetDescConcat, nftaSetFieldLen = 2, 1
	a.nest(nftaSetDescConcat, func() {
		for _, p := range s.Key {
			a.nest(unix.NFTA_LIST_ELEM, func() { a.u32(nftaSetFieldLen, uint32(parts[p].size)) })
		}
	})
}

// comment is how nft keeps a comment: type, length, text with a zero.
func comment(kind byte, text string) []byte {
	return append(append([]byte{kind, byte(len(text) + 1)}, text...), 0)
}

// elements writes elements in messages that the kernel takes whole.
func (b *batch) elements(t *Table, s *Set, kind int, flags uint16, list []Element, timeout time.Duration, label string) {
	for len(list) > 0 {
		n := 0
		b.add(kind, flags, t.Family, label, func(a *attrs) {
			start := len(*a)
			a.name(unix.NFTA_SET_ELEM_LIST_TABLE, t.Name)
			a.name(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
			a.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
				for n < len(list) && n < chunkElements && len(*a)-start < chunkBytes {
					s.element(a, list[n], timeout)
					n++
				}
			})
		})
		list = list[n:]
	}
}

func (s *Set) element(a *attrs, e Element, timeout time.Duration) {
	value := func(kind uint16, v string) {
		a.nest(kind, func() { a.text(unix.NFTA_DATA_VALUE, v) })
	}
	one := func(fill func()) { a.nest(unix.NFTA_LIST_ELEM, fill) }
	const nftaSetElemKeyEnd = 10
	switch {
	case e == catchall:
		one(func() { a.u32(unix.NFTA_SET_ELEM_FLAGS, elemCatchall) })
	case s.Interval && len(s.Key) == 1:
		// A tree of borders: the first member, and the first that is none any more.
		one(func() { value(unix.NFTA_SET_ELEM_KEY, e.Key) })
		if after, ok := successor(e.End); ok {
			one(func() {
				a.u32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
				value(unix.NFTA_SET_ELEM_KEY, after)
			})
		}
	default:
		one(func() {
			value(unix.NFTA_SET_ELEM_KEY, e.Key)
			if e.End != "" {
				value(nftaSetElemKeyEnd, e.End)
			}
			if timeout > 0 {
				a.u64(unix.NFTA_SET_ELEM_TIMEOUT, uint64(timeout/time.Millisecond))
			}
		})
	}
}

// successor is the next key, false after the last one.
func successor(k string) (string, bool) {
	b := []byte(k)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]++
		if b[i] != 0 {
			return string(b), true
		}
	}
	return "", false
}

func (b *batch) newChain(t *Table, c *Chain, label string) {
	b.add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_EXCL, t.Family, label, func(a *attrs) {
		a.name(unix.NFTA_CHAIN_TABLE, t.Name)
		a.name(unix.NFTA_CHAIN_NAME, c.Name)
		if c.Hook == nil {
			return
		}
		a.nest(unix.NFTA_CHAIN_HOOK, func() {
			a.u32(unix.NFTA_HOOK_HOOKNUM, c.Hook.Number)
			a.u32(unix.NFTA_HOOK_PRIORITY, uint32(c.Hook.Priority))
			if c.Hook.Device != "" {
				a.name(unix.NFTA_HOOK_DEV, c.Hook.Device)
			}
		})
		policy := uint32(1) // NF_ACCEPT
		if c.Hook.Drop {
			policy = 0 // NF_DROP
		}
		a.u32(unix.NFTA_CHAIN_POLICY, policy)
		a.name(unix.NFTA_CHAIN_TYPE, "filter")
	})
}

func (b *batch) newRule(t *Table, c *Chain, r Rule) {
	label := fmt.Sprintf("table %s %s: chain %s: rule %q", t.Family, t.Name, c.Name, r.Text)
	b.add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, t.Family, label, func(a *attrs) {
		a.name(unix.NFTA_RULE_TABLE, t.Name)
		a.name(unix.NFTA_RULE_CHAIN, c.Name)
		a.nest(unix.NFTA_RULE_EXPRESSIONS, func() {
			if b.compat && r.compat != nil {
				*a = append(*a, r.compat...)
			} else {
				*a = append(*a, r.wire...)
			}
		})
		if r.Comment != "" {
			a.bytes(unix.NFTA_RULE_USERDATA, comment(udataRuleComment, r.Comment))
		}
	})
}
