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

// Restore takes back what a former Names knew. What has ended since counts as in use, until the first
// Sweep has looked: a connection may have outlived the daemon.
func (n *Names) Restore(list []KnownName, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, k := range list {
		until := k.Until
		if limit := now.Add(NameCeiling); until.After(limit) { // the clock was set back
			until = limit
		}
		n.addLocked(namePair{k.Name, k.Addr}, n.patternLocked(k.Name), until)
	}
}
