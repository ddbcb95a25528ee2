package gossip

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"
	"unique"
)

// Claims decides whose an address is, where nodes claim addresses for their workloads. A node that was
// taken over must not get what policy allows to another one's workload by claiming its address, nor may a
// late word of a former owner:
//
//   - what this node says of its own workloads stands;
//   - a node that declared ranges gets addresses out of them only, and nobody else does; of two ranges
//     that overlap, the one that was known well before stands, else neither;
//   - of the rest, an address that two living nodes claim is nobody's, unless both say that it has the
//     same identity; the claim of a dead node yields.
//
// It does not ask who is later: clocks lie, and so do nodes. Not safe for concurrent use.
type Claims struct {
	self      string
	claimants map[string]*claimant
	byAddr    map[netip.Addr]*claim   // one of an address
	more      map[netip.Addr][]*claim // the others: hardly ever
	blocks    map[netip.Prefix][]*block
	lengths   map[prefixLength]int // how many blocks have it
	stale     map[Ref]struct{}
	disputed  map[Ref]Dispute // of those that were looked at
	all       bool            // ranges changed: everything is stale
}

// prefixLength is a range's length and family.
type prefixLength struct {
	bits int
	is4  bool
}

// Ref names a workload: a key in its node's book.
type Ref struct{ Node, Key string }

type claimant struct {
	dead   bool
	blocks []*block
	claims map[string]*claim
	addrs  int
}

type claim struct {
	Ref
	addrs   []netip.Addr
	granted []netip.Addr // as TakeChanged found it last
	is      unique.Handle[string]
}

// block is a range that a node declared.
type block struct {
	node string
	span netip.Prefix
	at   time.Time // when it was heard
	over []*block  // of other nodes, that overlap it
}

// blockTie is how much earlier a range must have been known to stand against another one. What is read
// back at a start is known at once, and tells nothing about who was first.
const blockTie = time.Minute

// stands says that no other node's range speaks against it.
func (b *block) stands() bool {
	for _, o := range b.over {
		if b.at.IsZero() && !o.at.IsZero() { // this node's own
			continue
		}
		if o.at.Sub(b.at) < blockTie {
			return false
		}
	}
	return true
}

// maxClaimed bounds the addresses that one node may claim; a node has some hundred workloads.
const maxClaimed = 16_384

// Dispute is a claim that is not granted.
type Dispute struct {
	Node  string // who claims
	Key   string // for which workload; empty: a range
	Other string // whose it is, or who claims it too; empty: nobody's
	What  string // the address or range, and why it is not granted
	// Passing says that it happens among honest nodes, for the blink of an eye: a workload moved, and its
	// old node has not said so yet.
	Passing bool
}

// NewClaims makes the claims as a node of that name judges them.
func NewClaims(self string) *Claims {
	return &Claims{self: self, claimants: map[string]*claimant{}, byAddr: map[netip.Addr]*claim{}, more: map[netip.Addr][]*claim{},
		blocks: map[netip.Prefix][]*block{}, lengths: map[prefixLength]int{}, stale: map[Ref]struct{}{}, disputed: map[Ref]Dispute{}}
}

func (c *Claims) claimant(node string) *claimant {
	n := c.claimants[node]
	if n == nil {
		n = &claimant{claims: map[string]*claim{}}
		c.claimants[node] = n
	}
	return n
}

// Set takes what a node claims for a workload: its addresses, and who it is, in any words that are equal
// for equal identities. No addresses: nothing any more. Errors: more than one node can have; the claim is
// then without them.
func (c *Claims) Set(node, key string, addrs []netip.Addr, is string) error {
	n := c.claimant(node)
	if old := n.claims[key]; old != nil {
		if old.is == unique.Make(is) && slices.Equal(old.addrs, addrs) {
			return nil
		}
		c.drop(n, old)
	}
	if len(addrs) == 0 {
		return nil
	}
	x := &claim{Ref: Ref{node, key}, is: unique.Make(is), addrs: slices.Clone(addrs)}
	var err error
	if n.addrs+len(addrs) > maxClaimed {
		err = fmt.Errorf("workload %q: node %q claims more than %d addresses: %w", key, node, maxClaimed, errFull)
		x.addrs = x.addrs[:max(maxClaimed-n.addrs, 0)]
	}
	n.addrs += len(x.addrs)
	n.claims[key] = x
	for _, a := range x.addrs {
		if c.byAddr[a] == nil {
			c.byAddr[a] = x
		} else {
			c.more[a] = append(c.more[a], x)
		}
		c.touch(a)
	}
	c.stale[x.Ref] = struct{}{}
	return err
}

func (c *Claims) drop(n *claimant, x *claim) {
	delete(n.claims, x.Key)
	delete(c.disputed, x.Ref)
	n.addrs -= len(x.addrs)
	for _, a := range x.addrs {
		c.touch(a)
		rest := slices.DeleteFunc(c.more[a], func(y *claim) bool { return y == x })
		if c.byAddr[a] == x {
			delete(c.byAddr, a)
			if len(rest) > 0 {
				c.byAddr[a], rest = rest[0], rest[1:]
			}
		}
		if len(rest) > 0 {
			c.more[a] = rest
		} else {
			delete(c.more, a)
		}
	}
}

// claiming gives all claims of an address.
func (c *Claims) claiming(a netip.Addr) iter.Seq[*claim] {
	return func(yield func(*claim) bool) {
		if x := c.byAddr[a]; x == nil || !yield(x) {
			return
		}
		for _, x := range c.more[a] {
			if !yield(x) {
				return
			}
		}
	}
}

// touch notes that the claims of an address must be looked at anew.
func (c *Claims) touch(a netip.Addr) {
	for x := range c.claiming(a) {
		c.stale[x.Ref] = struct{}{}
	}
}

// Alive says whether a node is a living member. It is until it is said otherwise.
func (c *Claims) Alive(node string, alive bool) {
	if n := c.claimants[node]; n != nil && n.dead == alive {
		n.dead = !alive
		for _, x := range n.claims {
			for _, a := range x.addrs {
				c.touch(a)
			}
		}
	}
}

// Forget drops all that a node claims.
func (c *Claims) Forget(node string) {
	n := c.claimants[node]
	if n == nil {
		return
	}
	c.SetBlocks(node, nil, time.Time{})
	for _, x := range slices.Collect(maps.Values(n.claims)) {
		c.drop(n, x)
	}
	delete(c.claimants, node)
}

// SetBlocks takes the ranges that a node declares, heard at a time; none: it may claim what is in
// nobody's.
func (c *Claims) SetBlocks(node string, declared []netip.Prefix, at time.Time) {
	n := c.claimant(node)
	if node == c.self {
		at = time.Time{}
	}
	var kept []*block
	for _, b := range n.blocks {
		if slices.Contains(declared, b.span) {
			kept = append(kept, b)
		} else {
			c.dropBlock(b)
			c.all = true
		}
	}
	n.blocks = kept
	for _, p := range declared {
		if !slices.ContainsFunc(kept, func(b *block) bool { return b.span == p }) {
			n.blocks = append(n.blocks, c.addBlock(&block{node: node, span: p, at: at}))
			c.all = true
		}
	}
}

func lengthOf(p netip.Prefix) prefixLength { return prefixLength{p.Bits(), p.Addr().Is4()} }

func (c *Claims) addBlock(b *block) *block {
	for _, list := range c.blocks {
		for _, o := range list {
			if o.node != b.node && o.span.Overlaps(b.span) {
				o.over, b.over = append(o.over, b), append(b.over, o)
			}
		}
	}
	c.blocks[b.span] = append(c.blocks[b.span], b)
	c.lengths[lengthOf(b.span)]++
	return b
}

func (c *Claims) dropBlock(b *block) {
	not := func(gone *block) func(*block) bool { return func(o *block) bool { return o == gone } }
	for _, o := range b.over {
		o.over = slices.DeleteFunc(o.over, not(b))
	}
	if rest := slices.DeleteFunc(c.blocks[b.span], not(b)); len(rest) > 0 {
		c.blocks[b.span] = rest
	} else {
		delete(c.blocks, b.span)
	}
	if c.lengths[lengthOf(b.span)]--; c.lengths[lengthOf(b.span)] == 0 {
		delete(c.lengths, lengthOf(b.span))
	}
}

// ranges says how declared ranges judge a claim: whether the node may have it, and else whose it is, if
// anybody's.
func (c *Claims) ranges(node string, a netip.Addr) (whose *block, ok bool) {
	for l := range c.lengths {
		if l.is4 != a.Is4() {
			continue
		}
		p, err := a.Prefix(l.bits)
		if err != nil {
			continue
		}
		for _, b := range c.blocks[p] {
			if b.node == node && b.stands() {
				return nil, true
			}
			if b.node != node {
				whose = b
			}
		}
	}
	return whose, whose == nil && len(c.claimants[node].blocks) == 0
}

// Held gives those of a workload's addresses that are its own. They must not be written to.
func (c *Claims) Held(r Ref) []netip.Addr {
	if n := c.claimants[r.Node]; n != nil && n.claims[r.Key] != nil {
		held, _ := c.held(n.claims[r.Key])
		return held
	}
	return nil
}

// held tells of the first address that is not granted, too. Mostly all are: then it is the claim's own
// list.
func (c *Claims) held(x *claim) (out []netip.Addr, first *Dispute) {
	for i, a := range x.addrs {
		switch d := c.judge(x, a); {
		case d == nil && first != nil:
			out = append(out, a)
		case d != nil && first == nil:
			first, out = d, slices.Clone(x.addrs[:i])
		}
	}
	if first == nil {
		return x.addrs, nil
	}
	return out, first
}

// judge says why an address is not granted; nil: it is.
func (c *Claims) judge(x *claim, a netip.Addr) *Dispute {
	no := func(other string, passing bool, format string, args ...any) *Dispute {
		return &Dispute{Node: x.Node, Key: x.Key, Other: other, Passing: passing, What: a.String() + " " + fmt.Sprintf(format, args...)}
	}
	if x.Node == c.self {
		return nil
	}
	if whose, ok := c.ranges(x.Node, a); !ok && whose != nil {
		return no(whose.node, false, "is in the range %s of node %q", whose.span, whose.node)
	} else if !ok {
		return no("", false, "is in none of the ranges that the node may use")
	}
	n := c.claimants[x.Node]
	for y := range c.claiming(a) {
		switch {
		case y.Node == x.Node, y.is == x.is && y.Node != c.self:
		case y.Node == c.self:
			return no(y.Node, true, "is a workload's of this node")
		case c.claimants[y.Node].dead && !n.dead:
		default:
			if _, ok := c.ranges(y.Node, a); !ok {
				continue // it has no say
			}
			return no(y.Node, true, "is claimed by node %q too, for another workload: it is nobody's until one of them lets go", y.Node)
		}
	}
	return nil
}

// TakeChanged gives the workloads whose granted addresses are others than when it was last called,
// sorted.
func (c *Claims) TakeChanged() []Ref {
	if c.all {
		c.all = false
		for _, n := range c.claimants {
			for _, x := range n.claims {
				c.stale[x.Ref] = struct{}{}
			}
		}
	}
	var out []Ref
	for r := range c.stale {
		n := c.claimants[r.Node]
		if n == nil || n.claims[r.Key] == nil {
			continue
		}
		x := n.claims[r.Key]
		held, dispute := c.held(x)
		if !slices.Equal(held, x.granted) {
			x.granted = held
			out = append(out, r)
		}
		// The claim of a dead node yields, and nobody has to do anything about it.
		if delete(c.disputed, r); dispute != nil && !n.dead && len(c.disputed) < maxDisputes {
			c.disputed[r] = *dispute
		}
	}
	c.stale = map[Ref]struct{}{} // a cleared one keeps the room of the largest burst
	slices.SortFunc(out, func(a, b Ref) int { return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Key, b.Key)) })
	return out
}

// maxDisputes bounds what is listed.
const maxDisputes = 1000

// Disputes lists claims that are not granted, as TakeChanged found them last, ranges first. Of a workload
// the first address is told.
func (c *Claims) Disputes() []Dispute {
	var out []Dispute
	for _, node := range slices.Sorted(maps.Keys(c.claimants)) {
		for _, b := range c.claimants[node].blocks {
			if !b.stands() {
				out = append(out, Dispute{Node: node, Other: b.over[0].node, What: fmt.Sprintf("range %s overlaps %s of node %q", b.span, b.over[0].span, b.over[0].node)})
			}
		}
	}
	ranges := len(out)
	out = append(out, slices.Collect(maps.Values(c.disputed))...)
	slices.SortFunc(out[ranges:], func(a, b Dispute) int { return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Key, b.Key)) })
	return out
}

// Nodes lists who claims anything.
func (c *Claims) Nodes() []string { return slices.Sorted(maps.Keys(c.claimants)) }
