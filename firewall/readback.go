package firewall

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// tableState is a table as the kernel has it, with who owns it.
type tableState struct {
	table *Table
	flags uint32
	owner uint32 // port of the owning socket, 0 for none
}

// readHead reads flags and owner of a table; nil where there is none.
func (s *socket) readHead(like *Table) (*tableState, error) {
	st := &tableState{table: &Table{Place: like.Place, Family: like.Family, Name: like.Name}}
	found, err := s.get(unix.NFT_MSG_GETTABLE, like.Family, fmt.Sprintf("table %s %s", like.Family, like.Name),
		func(a *attrs) { a.name(unix.NFTA_TABLE_NAME, like.Name) },
		func(_ Family, at []attr) {
			st.flags = be32(find(at, unix.NFTA_TABLE_FLAGS))
			st.owner = be32(find(at, nftaTableOwner))
		})
	if err != nil || !found {
		return nil, err
	}
	return st, nil
}

// readTable reads a table of ours with all that is in it, except what packets put there. It returns
// nil where there is no such table.
func (s *socket) readTable(like *Table) (*tableState, error) {
	st, err := s.readHead(like)
	if err != nil || st == nil {
		return nil, err
	}
	t := st.table
	what := fmt.Sprintf("table %s %s", t.Family, t.Name)
	s.calm = st.owner == s.port
	defer func() { s.calm = false }()
	for _, read := range []func(*Table, string) error{s.readCounters, s.readSets, s.readChains, s.readRules} {
		if err := read(t, what); err != nil {
			return nil, err
		}
	}
	t.sort()
	return st, nil
}

func (s *socket) readCounters(t *Table, what string) error {
	return s.dump(unix.NFT_MSG_GETOBJ, t.Family, what+": counters", func(a *attrs) { a.name(unix.NFTA_OBJ_TABLE, t.Name) },
		func(f Family, at []attr) {
			if f != t.Family || cstring(find(at, unix.NFTA_OBJ_TABLE)) != t.Name {
				return
			}
			if be32(find(at, unix.NFTA_OBJ_TYPE)) != unix.NFT_OBJECT_COUNTER {
				t.foreign = "it holds an object that is not ours"
			}
			t.Counters = append(t.Counters, cstring(find(at, unix.NFTA_OBJ_NAME)))
		})
}

func (s *socket) readSets(t *Table, what string) error {
	err := s.dump(unix.NFT_MSG_GETSET, t.Family, what+": sets", func(a *attrs) { a.name(unix.NFTA_SET_TABLE, t.Name) },
		func(f Family, at []attr) {
			if f != t.Family || cstring(find(at, unix.NFTA_SET_TABLE)) != t.Name {
				return
			}
			set, ok := readSet(at)
			if !ok {
				t.foreign = "set " + set.Name + " is not ours"
			}
			t.Sets = append(t.Sets, set)
		})
	if err != nil || t.foreign != "" {
		return err
	}
	for _, set := range t.Sets {
		if set.filled() {
			continue
		}
		if err := s.readElements(t, set, what); err != nil {
			return err
		}
	}
	return nil
}

// readSet reads a set's definition; ok is false where we never make such a set.
func readSet(at []attr) (set *Set, ok bool) {
	flags := be32(find(at, unix.NFTA_SET_FLAGS))
	set = &Set{
		Name:     cstring(find(at, unix.NFTA_SET_NAME)),
		Key:      keyOfNumber(be32(find(at, unix.NFTA_SET_KEY_TYPE))),
		Interval: flags&unix.NFT_SET_INTERVAL != 0,
		Dynamic:  flags&setEval != 0,
		Size:     be32(find(readAttrs(find(at, unix.NFTA_SET_DESC)), unix.NFTA_SET_DESC_SIZE)),
		Timeout:  time.Duration(be64(find(at, unix.NFTA_SET_TIMEOUT))) * time.Millisecond,
		Comment:  readComment(find(at, unix.NFTA_SET_USERDATA), udataSetComment),
	}
	if e := find(at, nftaSetExpr); e != nil {
		set.Counted = cstring(find(readAttrs(e), unix.NFTA_EXPR_NAME)) == "counter"
		ok = set.Counted
	} else {
		ok = find(at, nftaSetExprs) == nil
	}
	return set, ok && flags == set.flags() && int(be32(find(at, unix.NFTA_SET_KEY_LEN))) == set.Key.size()
}

// readComment finds a comment in user data: type, length and text of each.
func readComment(data []byte, kind byte) string {
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		if data[0] == kind {
			return cstring(data[2 : 2+int(data[1])])
		}
		data = data[2+int(data[1]):]
	}
	return ""
}

func (s *socket) readElements(t *Table, set *Set, what string) error {
	var borders []border
	err := s.dump(unix.NFT_MSG_GETSETELEM, t.Family, what+": elements of set "+set.Name,
		func(a *attrs) {
			a.name(unix.NFTA_SET_ELEM_LIST_TABLE, t.Name)
			a.name(unix.NFTA_SET_ELEM_LIST_SET, set.Name)
		},
		func(_ Family, at []attr) {
			for _, e := range readAttrs(find(at, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
				in := readAttrs(e.data)
				flags := be32(find(in, unix.NFTA_SET_ELEM_FLAGS))
				el := Element{Key: readValue(find(in, unix.NFTA_SET_ELEM_KEY)), End: readValue(find(in, 10))}
				switch {
				case flags&elemCatchall != 0:
					set.Elements = append(set.Elements, catchall)
				case set.Interval && len(set.Key) == 1:
					borders = append(borders, border{el.Key, flags&unix.NFT_SET_ELEM_INTERVAL_END != 0})
				default:
					set.Elements = append(set.Elements, el)
				}
			}
		})
	set.Elements = append(set.Elements, intervals(borders, set.Key.size())...)
	sortElements(set.Elements)
	return err
}

func readValue(data []byte) string { return string(find(readAttrs(data), unix.NFTA_DATA_VALUE)) }

// border is the beginning of an interval, or the first key after it.
type border struct {
	key string
	end bool
}

// intervals joins the borders of a tree to elements.
func intervals(borders []border, size int) []Element {
	slices.SortFunc(borders, func(a, b border) int {
		switch {
		case a.key != b.key && a.key < b.key, a.key == b.key && a.end && !b.end:
			return -1
		case a == b:
			return 0
		}
		return 1
	})
	var out []Element
	for i, b := range borders {
		if b.end {
			continue
		}
		e := Element{Key: b.key, End: highest(size)}
		if i+1 < len(borders) && borders[i+1].end {
			e.End = predecessor(borders[i+1].key)
		}
		out = append(out, e)
	}
	return out
}

func highest(size int) string {
	b := make([]byte, size)
	for i := range b {
		b[i] = 0xff
	}
	return string(b)
}

func predecessor(k string) string {
	b := []byte(k)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			break
		}
	}
	return string(b)
}

func (s *socket) readChains(t *Table, what string) error {
	return s.dump(unix.NFT_MSG_GETCHAIN, t.Family, what+": chains", func(a *attrs) { a.name(unix.NFTA_CHAIN_TABLE, t.Name) },
		func(f Family, at []attr) {
			if f != t.Family || cstring(find(at, unix.NFTA_CHAIN_TABLE)) != t.Name {
				return
			}
			c := &Chain{Name: cstring(find(at, unix.NFTA_CHAIN_NAME))}
			if h := find(at, unix.NFTA_CHAIN_HOOK); h != nil {
				c.Hook = readHook(readAttrs(h))
				c.Hook.Drop = be32(find(at, unix.NFTA_CHAIN_POLICY)) == 0
				if cstring(find(at, unix.NFTA_CHAIN_TYPE)) != "filter" {
					t.foreign = "chain " + c.Name + " is not ours"
				}
			}
			t.Chains = append(t.Chains, c)
		})
}

// readHook reads where a base chain hangs. More than one device is never ours; neither is none, which
// a chain has whose device is gone.
func readHook(at []attr) *Hook {
	h := &Hook{Number: be32(find(at, unix.NFTA_HOOK_HOOKNUM)), Priority: int32(be32(find(at, unix.NFTA_HOOK_PRIORITY)))}
	const nftaHookDevs = 4
	if devs := readAttrs(find(at, nftaHookDevs)); len(devs) == 1 {
		h.Device = cstring(devs[0].data)
	} else if dev := find(at, unix.NFTA_HOOK_DEV); dev != nil && len(devs) == 0 {
		h.Device = cstring(dev)
	}
	return h
}

func (s *socket) readRules(t *Table, what string) error {
	return s.dump(unix.NFT_MSG_GETRULE, t.Family, what+": rules", func(a *attrs) { a.name(unix.NFTA_RULE_TABLE, t.Name) },
		func(f Family, at []attr) {
			if f != t.Family || cstring(find(at, unix.NFTA_RULE_TABLE)) != t.Name {
				return
			}
			c := t.chain(cstring(find(at, unix.NFTA_RULE_CHAIN)))
			if c == nil {
				return
			}
			exprs := find(at, unix.NFTA_RULE_EXPRESSIONS)
			c.Rules = append(c.Rules, Rule{
				Comment: readComment(find(at, unix.NFTA_RULE_USERDATA), udataRuleComment),
				canon:   canonical(exprs),
			})
		})
}
