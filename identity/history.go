package identity

import (
	"net/netip"
	"time"
)

// What the past holds at most: owners of one address, and addresses.
const (
	maxFormer = 4
	maxPast   = 32_768
)

// history remembers the last owners of addresses, so that a packet is named by who had the address
// at the packet's time. The oldest addresses are forgotten first.
type history struct {
	former map[netip.Addr][]tenure // oldest first
	order  []netip.Addr            // of former's keys, by when they came in; from head on
	head   int
}

func newHistory() history { return history{former: map[netip.Addr][]tenure{}} }

func (h *history) of(a netip.Addr) []tenure { return h.former[a] }

func (h *history) add(a netip.Addr, t tenure) {
	t.record = nil // only its workload and span are of use now
	list, known := h.former[a]
	if !known {
		h.order = append(h.order, a)
	}
	if len(list) == maxFormer {
		list = append(list[:0:0], list[1:]...)
	}
	h.former[a] = append(list, t)
	for len(h.former) > maxPast {
		delete(h.former, h.order[h.head])
		h.head++
	}
	if h.head > maxPast {
		h.order = append(h.order[:0:0], h.order[h.head:]...)
		h.head = 0
	}
}

// Name names an address as it was at a time, which is the packet's; the zero time is now. The
// workload that owned it then, if any; else as [View.Peer] without workloads: an address between
// two owners is nobody's, so a newcomer is never taken for its predecessor nor the reverse. A
// packet from before the first owner that we know of is that owner's: we learned of it late.
func (ix *Index) Name(addr netip.Addr, at time.Time) Peer {
	addr = Normal(addr)
	ix.mu.RLock()
	w := ix.ownerAtLocked(addr, at)
	ix.mu.RUnlock()
	if w != nil {
		return Peer{Kind: Pod, Addr: addr, Workload: w}
	}
	return ix.View().unowned(addr)
}

func (ix *Index) ownerAtLocked(addr netip.Addr, at time.Time) *Workload {
	now, owned := ix.owners[addr]
	if owned && (at.IsZero() || !at.Before(now.from)) {
		return now.workload
	}
	if at.IsZero() {
		return nil
	}
	former := ix.past.of(addr)
	for i := len(former) - 1; i >= 0; i-- {
		if t := former[i]; !at.Before(t.from) && at.Before(t.until) {
			return t.workload
		}
	}
	if owned && len(former) == 0 {
		return now.workload
	}
	if len(former) > 0 && len(former) < maxFormer && at.Before(former[0].from) {
		return former[0].workload
	}
	return nil
}
