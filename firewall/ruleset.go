package firewall

import (
	"strings"
	"time"
)

// Place says in which network namespace a table lives.
type Place uint8

const (
	InWorkload Place = iota // the workload's own namespace
	AtNode                  // the node's namespace, on the host's end of a veth
)

func (p Place) String() string {
	if p == AtNode {
		return "node"
	}
	return "workload"
}

// Family is nftables' address family of a table (NFPROTO_*).
type Family uint8

const (
	FamilyINet   Family = 1
	FamilyNetdev Family = 5
)

func (f Family) String() string {
	if f == FamilyNetdev {
		return "netdev"
	}
	return "inet"
}

// Ruleset is everything that one workload holds in the kernel: the inet table in its namespace
// first, then one guard for each interface. [Compile] makes what is wanted, [Open] reads what is
// there, [Diff] tells the difference. A Ruleset is never written to after it was made.
type Ruleset struct {
	Tables []*Table

	spec Spec // what it was compiled from; zero for what was read from the kernel
}

// Table is one nftables table. Sets, chains and counters are sorted by name.
type Table struct {
	Place    Place
	Family   Family
	Name     string
	Counters []string
	Sets     []*Set
	Chains   []*Chain

	shared  *guardChains // where Chains come from, kept as long as the table is
	foreign string       // why it cannot be brought to the wanted state by increments; empty for what we wrote
}

// Set is a named set. A dynamic set is filled by packets and has no elements here.
type Set struct {
	Name     string
	Key      Key
	Interval bool
	Dynamic  bool
	Size     uint32        // elements at most; 0: no bound of its own
	Timeout  time.Duration // of an element; 0: none
	Counted  bool          // each element counts packets and bytes
	Comment  string
	Elements []Element // sorted, disjoint
}

// Element is one member of a set as the kernel has it: the parts of its key in network byte order,
// each padded to four bytes. End is the last member of an interval and empty otherwise.
type Element struct {
	Key string
	End string
}

// Chain is a base chain where Hook is set.
type Chain struct {
	Name  string
	Hook  *Hook
	Rules []Rule

	// records says that packets pass here to be remembered and never to be judged, so that the chain
	// can be in force before the chains that rely on what it remembers.
	records bool
	warm    *Chain // the same chain, remembering more; see askedChain
}

// Hook is where packets meet a base chain.
type Hook struct {
	Number   uint32 // NF_INET_* or NF_NETDEV_*
	Priority int32
	Device   string // for netdev: the interface's name
	Drop     bool   // policy
}

// Rule is one rule. Text is what nft prints of it; the rest is what the kernel holds. Two rules are
// the same when their canonical form and comment are.
type Rule struct {
	Text    string
	Comment string

	wire  []byte // NFTA_RULE_EXPRESSIONS
	canon string // the same without what the kernel changes on the way; see canonical

	// The same for kernels without an expression that wire has, empty where it has none of those.
	compat      []byte
	compatCanon string
}

func (r Rule) same(o Rule) bool {
	return r.Comment == o.Comment && (r.canon == o.canon ||
		r.compatCanon != "" && r.compatCanon == o.canon || o.compatCanon != "" && o.compatCanon == r.canon)
}

func (e Element) compare(o Element) int {
	if c := strings.Compare(e.Key, o.Key); c != 0 {
		return c
	}
	return strings.Compare(e.End, o.End)
}

func (t *Table) set(name string) *Set {
	for _, s := range t.Sets {
		if s.Name == name {
			return s
		}
	}
	return nil
}

func (t *Table) chain(name string) *Chain {
	for _, c := range t.Chains {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// table finds the table of the same place, family and name.
func (rs *Ruleset) table(like *Table) *Table {
	if rs == nil {
		return nil
	}
	for _, t := range rs.Tables {
		if t.sameAs(like) {
			return t
		}
	}
	return nil
}

func (t *Table) sameAs(o *Table) bool {
	return t.Place == o.Place && t.Family == o.Family && t.Name == o.Name
}
