package alert

import (
	"sync"
	"sync/atomic"
)

// Ring keeps the last alerts in memory and hands new ones to those who follow. An update takes the
// place of the alert that it updates; followers get both. A follower who is too slow misses alerts,
// which it can see; it never holds up the others.
type Ring struct {
	mu   sync.Mutex
	buf  []Alert
	next int // where the next one goes
	n    int
	subs map[*Subscription]struct{}
}

// NewRing makes a ring of the last n alerts.
func NewRing(n int) *Ring {
	return &Ring{buf: make([]Alert, max(n, 1)), subs: make(map[*Subscription]struct{})}
}

// Send is for the dispatcher. It never fails and never blocks.
func (r *Ring) Send(a Alert) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keepLocked(a)
	for s := range r.subs {
		select {
		case s.c <- a:
		default:
			s.missed.Add(1)
		}
	}
	return nil
}

func (r *Ring) keepLocked(a Alert) {
	for i := 1; i <= r.n; i++ {
		if old := &r.buf[(r.next-i+len(r.buf))%len(r.buf)]; updates(&a, old) {
			*old = a
			return
		}
	}
	r.buf[r.next] = a
	r.next = (r.next + 1) % len(r.buf)
	r.n = min(r.n+1, len(r.buf))
}

// updates says that a tells of the same as old, with a new count.
func updates(a, old *Alert) bool {
	if a.Kind != old.Kind || !a.First.Equal(old.First) || a.Count <= old.Count {
		return false
	}
	if a.Kind == PortScan {
		return a.Client == old.Client
	}
	return keyOf(a) == keyOf(old)
}

// Last returns the last n alerts for which want is true, oldest first; n ≤ 0 and a nil want mean
// all.
func (r *Ring) Last(n int, want func(*Alert) bool) []Alert {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lastLocked(n, want)
}

func (r *Ring) lastLocked(n int, want func(*Alert) bool) []Alert {
	var out []Alert
	for i := 1; i <= r.n && (n <= 0 || len(out) < n); i++ {
		a := &r.buf[(r.next-i+len(r.buf))%len(r.buf)]
		if want == nil || want(a) {
			out = append(out, *a)
		}
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}

// Subscription is one follower.
type Subscription struct {
	ring   *Ring
	c      chan Alert
	missed atomic.Uint64
}

// Follow returns the last n alerts (none for n ≤ 0) and a subscription that continues right after
// them, with room for queue alerts that were not yet read. Close it.
func (r *Ring) Follow(n, queue int) ([]Alert, *Subscription) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &Subscription{ring: r, c: make(chan Alert, max(queue, 1))}
	r.subs[s] = struct{}{}
	if n <= 0 {
		return nil, s
	}
	return r.lastLocked(n, nil), s
}

// C delivers alerts. It is never closed: select on it beside what ends the follower.
func (s *Subscription) C() <-chan Alert { return s.c }

// Missed counts alerts that found the follower's queue full.
func (s *Subscription) Missed() uint64 { return s.missed.Load() }

// Close ends the subscription.
func (s *Subscription) Close() {
	s.ring.mu.Lock()
	defer s.ring.mu.Unlock()
	delete(s.ring.subs, s)
}
