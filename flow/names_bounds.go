package flow

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// evictionsPerSecond bounds how often one name makes room for another: each costs the kernel a walk over
// the workload's connections, and whoever answers for a wildcard could ask for any number of them.
const evictionsPerSecond = 20

// addLocked puts a pair in, and says whether that is news, and which address lost a name for it.
func (n *Names) addLocked(k namePair, pattern string, until, now time.Time) (gone netip.Addr, news bool) {
	if p := n.pairs[k]; p != nil {
		if !until.After(p.until) {
			return gone, false
		}
		p.until = until
		n.version++
		return gone, true
	}
	if full := n.filled[pattern] >= n.lim.PerPattern; full || len(n.pairs) >= n.lim.Total {
		if n.second != now.Unix() {
			n.second, n.evicted = now.Unix(), 0
		}
		var loser *nameSpan
		if n.evicted < evictionsPerSecond {
			loser = n.loserLocked(pattern, !full)
		}
		if loser == nil {
			n.stats.Refused++
			return gone, false
		}
		n.stats.Evicted++
		n.evicted++
		gone = loser.addr
		n.removeLocked(loser)
	}
	n.putLocked(k, pattern, until)
	return gone, true
}

func (n *Names) putLocked(k namePair, pattern string, until time.Time) {
	if n.pairs[k] != nil {
		return
	}
	p := &nameSpan{namePair: k, until: until, pattern: pattern}
	n.pairs[k] = p
	n.byAddr[k.addr] = append(n.byAddr[k.addr], p)
	n.filled[pattern]++
	n.version++
}

// loserLocked is the pair to give up: where all of the room is taken, one that no policy names first,
// and else one of the same pattern.
func (n *Names) loserLocked(pattern string, all bool) *nameSpan {
	if all && pattern != "" {
		if p := n.loserLocked("", false); p != nil {
			return p
		}
	}
	var best *nameSpan
	for _, p := range n.pairs {
		if p.used || p.pattern != pattern {
			continue
		}
		if best == nil || cmp.Or(p.until.Compare(best.until), cmp.Compare(p.name, best.name), p.addr.Compare(best.addr)) < 0 {
			best = p
		}
	}
	return best
}

func (n *Names) removeLocked(p *nameSpan) {
	delete(n.pairs, p.namePair)
	rest := slices.DeleteFunc(n.byAddr[p.addr], func(x *nameSpan) bool { return x == p })
	if len(rest) == 0 {
		delete(n.byAddr, p.addr)
	} else {
		n.byAddr[p.addr] = rest
	}
	if n.filled[p.pattern]--; n.filled[p.pattern] == 0 {
		delete(n.filled, p.pattern)
	}
	n.version++
}
