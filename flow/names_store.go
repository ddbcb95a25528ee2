package flow

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// KnownName is a name with an address that a workload learned, as it is stored and shown.
type KnownName struct {
	Name  string     `json:"name"`
	Addr  netip.Addr `json:"addr"`
	Until time.Time  `json:"until"`           // UTC; from then on only while a connection uses the address
	Used  bool       `json:"inUse,omitempty"` // a connection used the address when it was last looked at
}

// Version changes whenever what is known does.
func (n *Names) Version() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.version
}

// Known lists what is known by name and address. With onlyPolicy it leaves out what no policy names:
// nothing stands on that, and nobody need remember it.
func (n *Names) Known(onlyPolicy bool) []KnownName {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := []KnownName{}
	for _, p := range n.pairs {
		if !onlyPolicy || p.pattern != "" {
			out = append(out, KnownName{p.name, p.addr, p.until.UTC(), p.used})
		}
	}
	slices.SortFunc(out, func(a, b KnownName) int { return cmp.Or(cmp.Compare(a.Name, b.Name), a.Addr.Compare(b.Addr)) })
	return out
}

// Restore takes back what a former Names knew, up to the bound of all. What has ended since stays until
// the first Sweep has looked: a connection may have outlived the daemon.
func (n *Names) Restore(list []KnownName, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, k := range list {
		if !k.Addr.IsValid() || len(n.pairs) >= n.lim.Total {
			continue
		}
		// No further ahead than an answer could say: the clock may have been set back.
		until := k.Until
		if limit := now.Add(NameCeiling); until.After(limit) {
			until = limit
		}
		n.putLocked(namePair{k.Name, k.Addr}, n.patternLocked(k.Name), until)
	}
}

// Keep forgets the addresses that names may no longer open, and says which had names.
func (n *Names) Keep(opens func(netip.Addr) bool) []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	var touched []netip.Addr
	for a, list := range n.byAddr {
		if opens(a) {
			continue
		}
		n.stats.Outside++
		touched = append(touched, a)
		for _, p := range slices.Clone(list) {
			n.removeLocked(p)
		}
	}
	slices.SortFunc(touched, netip.Addr.Compare)
	return touched
}
