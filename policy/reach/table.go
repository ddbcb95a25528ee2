package reach

import (
	"net/netip"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// table answers which points one side allows for an address.
type table struct {
	open  bool // not isolated: everything but what is denied
	allow lookup
	deny  lookup
}

// lookup finds the entries that are about an address, one question per length of prefix that occurs.
type lookup struct {
	spans map[netip.Prefix][]span
	bits  [2][]int // by family
}

func newTable(s policy.Side) *table {
	return &table{open: !s.Isolated, allow: newLookup(s.Entries), deny: newLookup(s.Denied)}
}

func newLookup(entries []policy.Entry) lookup {
	l := lookup{spans: make(map[netip.Prefix][]span, len(entries))}
	var seen [2][129]bool
	for _, e := range entries {
		l.spans[e.Peer] = append(l.spans[e.Peer], spanOf(e))
		f := family(e.Peer.Addr())
		if b := e.Peer.Bits(); !seen[f][b] {
			seen[f][b] = true
			l.bits[f] = append(l.bits[f], b)
		}
	}
	return l
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func (l *lookup) at(a netip.Addr) region {
	var out []span
	for _, b := range l.bits[family(a)] {
		if p, err := a.Prefix(b); err == nil {
			out = append(out, l.spans[p]...)
		}
	}
	return union(out)
}

// at is what the side allows for a peer's address.
func (t *table) at(a netip.Addr) region {
	out := everything
	if !t.open {
		out = t.allow.at(a)
	}
	if len(t.deny.spans) > 0 {
		out = out.without(t.deny.at(a))
	}
	if a.Is4() {
		return out.without(icmp6)
	}
	return out.without(icmp4)
}

// same says whether two sides allow and deny the same, whatever their rules are called.
func same(a, b policy.Side) bool {
	entry := func(x, y policy.Entry) bool {
		x.Rule, y.Rule = "", ""
		return x == y
	}
	name := func(x, y policy.NameEntry) bool {
		x.Rule, y.Rule = "", ""
		return x == y
	}
	return a.Isolated == b.Isolated && slices.EqualFunc(a.Entries, b.Entries, entry) &&
		slices.EqualFunc(a.Denied, b.Denied, entry) && slices.EqualFunc(a.Names, b.Names, name)
}
