package flow

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// How long what an answer says is held to be true.
const (
	// NameFloor is the shortest. Programs look a name up, do something else, and connect; resolvers of
	// rotating services answer with TTLs of a few seconds.
	NameFloor = time.Minute
	// NameCeiling is the longest: a day, with which resolvers cap TTLs themselves (RFC 8767, 4, says
	// one to seven).
	NameCeiling = 24 * time.Hour
)

// NameLimits bounds what a Names keeps. A field that is zero takes the default named beside it.
type NameLimits struct {
	Total      int // pairs of name and address: 4096, some 200 bytes each
	PerPattern int // pairs that one name of policy, or its wildcard, may fill, so that it leaves room for the others: 512
}

// Names is what one workload learned from answers of its resolvers: which addresses a name has, and
// until when. It reads no clock. All methods may be called from any goroutine.
//
// Whoever answers for a zone that a wildcard of policy names can fill that wildcard's share and no
// more. What is full gives up the pair that ends first and that no connection uses.
type Names struct {
	lim NameLimits

	mu       sync.Mutex
	patterns []string // of policy, sorted; "*.domain" or a name
	pairs    map[namePair]*nameSpan
	byAddr   map[netip.Addr][]*nameSpan
	filled   map[string]int // pairs by pattern; "" for names that no policy names
	stats    NameStats
	version  uint64
	second   int64 // in which evicted was counted
	evicted  int
}

// NameStats counts what a Names could not keep. Figures but Pairs only grow.
type NameStats struct {
	Pairs   int    `json:"pairs"`   // of name and address, now
	Evicted uint64 `json:"evicted"` // given up before their time, for others
	Refused uint64 `json:"refused"` // not taken, since all others are in use, or too many came at once
	Outside uint64 `json:"outside"` // addresses that names may not open
}

type namePair struct {
	name string
	addr netip.Addr
}

type nameSpan struct {
	namePair
	until   time.Time
	pattern string
	used    bool // a connection used the address when Sweep last looked
}

// NewNames makes an empty one.
func NewNames(lim NameLimits) *Names {
	lim.Total = cmp.Or(lim.Total, 4096)
	lim.PerPattern = cmp.Or(lim.PerPattern, 512)
	return &Names{lim: lim, pairs: map[namePair]*nameSpan{}, byAddr: map[netip.Addr][]*nameSpan{}, filled: map[string]int{}}
}

// SetPatterns says which names policy speaks of.
func (n *Names) SetPatterns(patterns []string) {
	patterns = slices.Compact(slices.Sorted(slices.Values(patterns)))
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.Equal(patterns, n.patterns) {
		return
	}
	n.patterns, n.filled = patterns, map[string]int{}
	for _, p := range n.pairs {
		p.pattern = n.patternLocked(p.name)
		n.filled[p.pattern]++
	}
	n.version++
}

// patternLocked finds the pattern that counts a name: itself, else the longest wildcard.
func (n *Names) patternLocked(name string) string {
	best := ""
	for _, p := range n.patterns {
		if policy.MatchesName(p, name) && (p == name || len(p) > len(best) && best != name) {
			best = p
		}
	}
	return best
}

// Learn takes an answer and says of which addresses something new is known, a later end included.
// opens says whether names may open an address at all; nil: every address.
//
// Kept are the asked name and those on the chain of aliases that policy names.
func (n *Names) Learn(a Answer, opens func(netip.Addr) bool, now time.Time) []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	patterns := make([]string, len(a.Names))
	for i, name := range a.Names {
		patterns[i] = n.patternLocked(name)
	}
	var touched []netip.Addr
	for _, x := range a.Addrs {
		if !x.Addr.IsValid() || opens != nil && !opens(x.Addr) {
			n.stats.Outside++
			continue
		}
		until := now.Add(min(max(x.TTL, NameFloor), NameCeiling))
		news := false
		for i := 0; i <= x.Owner && i < len(a.Names); i++ {
			if i == 0 || patterns[i] != "" {
				gone, is := n.addLocked(namePair{a.Names[i], x.Addr}, patterns[i], until, now)
				news = news || is
				if gone.IsValid() {
					touched = append(touched, gone)
				}
			}
		}
		if news {
			touched = append(touched, x.Addr)
		}
	}
	slices.SortFunc(touched, netip.Addr.Compare)
	return slices.Compact(touched)
}

// Sweep forgets what has ended, but for addresses that a connection uses: those stay for another
// NameFloor each time. It says of which addresses something changed.
func (n *Names) Sweep(inUse func(netip.Addr) bool, now time.Time) []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	var touched []netip.Addr
	for a, list := range n.byAddr {
		used := inUse(a)
		changed := false
		for _, p := range slices.Clone(list) {
			p.used = used
			switch {
			case p.until.After(now):
				continue
			case used:
				p.until = now.Add(NameFloor)
				n.version++
			default:
				n.removeLocked(p)
			}
			changed = true
		}
		if changed {
			touched = append(touched, a)
		}
	}
	slices.SortFunc(touched, netip.Addr.Compare)
	return touched
}

// Of gives the names of an address, sorted.
func (n *Names) Of(a netip.Addr) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for _, p := range n.byAddr[a] {
		out = append(out, p.name)
	}
	slices.Sort(out)
	return out
}

// Addrs lists every address that has a name, sorted.
func (n *Names) Addrs() []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]netip.Addr, 0, len(n.byAddr))
	for a := range n.byAddr {
		out = append(out, a)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// Openings is what entries by name allow with one address, and until when at the latest.
func (n *Names) Openings(a netip.Addr, entries []policy.NameEntry) (out []policy.Entry, until time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	type what struct {
		protocol    identity.Protocol
		first, last uint16
	}
	have := map[what]bool{}
	for _, p := range n.byAddr[a] {
		for _, e := range entries {
			if !policy.MatchesName(e.Name, p.name) {
				continue
			}
			if p.until.After(until) {
				until = p.until
			}
			if w := (what{e.Protocol, e.Port, e.EndPort}); !have[w] {
				have[w] = true
				out = append(out, policy.Entry{Peer: identity.Single(a), Protocol: e.Protocol, Port: e.Port, EndPort: e.EndPort, Rule: e.Rule})
			}
		}
	}
	return out, until
}

// Stats tells how full it is.
func (n *Names) Stats() NameStats {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.stats
	s.Pairs = len(n.pairs)
	return s
}
