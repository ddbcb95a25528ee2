package alert

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"
	"time"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// suspectKey is one client: a workload, an address of the world, or a named peer.
type suspectKey struct {
	workload string
	end      flow.End
}

// suspect is a client of which something denied or new was seen lately.
type suspect struct {
	recent []touch // distinct (server, port) within the window, fewer than make a scan
	held   []held  // alerts not yet let go; at most one per touch
	scan   *scan   // once there were too many
	last   time.Time
}

// touch is one (server, port) that a client tried.
type touch struct {
	what uint64 // hash
	at   time.Time
}

// held is an alert kept back for a moment.
type held struct {
	alert Alert
	by    [3]uint64 // counts by the end that reported
	due   time.Time
}

// scan is a client that tried too much.
type scan struct {
	alert    Alert // without Count, Ports and Reason
	by       [3]uint64
	touched  map[uint64]struct{}
	began    time.Time
	lastHit  time.Time
	sent     time.Time // zero: not yet
	sentHits uint64
}

// several stands for the server of a scan over more than one.
const several = "several servers"

// seed makes what an attacker chooses fall into unforeseeable places.
var seed = maphash.MakeSeed()

func touchOf(c *Case) uint64 {
	k := keyOfCase(c)
	k.Client = flow.End{}
	return maphash.Comparable(seed, k)
}

// suspectLocked finds or makes the suspect of a case. Where there are too many, those that are left
// share one: the world, or all workloads.
func (j *Judge) suspectLocked(c *Case) (*suspect, bool) {
	k := suspectKey{end: keyOfCase(c).Client}
	if w := c.Client.Workload; w != nil && c.Client.Kind == identity.Pod {
		k.workload = w.ID
	}
	if s := j.suspects[k]; s != nil {
		return s, true
	}
	own := true
	isAddr := k.end.Kind == identity.World && k.end.Addr.IsValid()
	if len(j.suspects) >= j.Clients || isAddr && j.world >= j.Addresses {
		k, own, isAddr = suspectKey{end: flow.End{Kind: k.end.Kind}}, false, false
		if s := j.suspects[k]; s != nil {
			return s, false
		}
	}
	s := &suspect{}
	j.suspects[k] = s
	if isAddr {
		j.world++
	}
	return s, own
}

// holdLocked keeps a denied or new connection back, or folds it into its client's scan.
func (j *Judge) holdLocked(c *Case, a Alert) {
	s, own := j.suspectLocked(c)
	if !own { // one of too many to be told apart
		a.Client.Addr, a.Client.Workload = netip.Addr{}, ""
		a.Client.Service = "world"
		if c.Client.Kind == identity.Pod {
			a.Client.Service = "more workloads than are watched"
		}
	}
	now := j.Now()
	s.last = now
	t := touchOf(c)
	if s.scan != nil {
		j.hitLocked(s.scan, c, a, now)
		return
	}
	s.recent = slices.DeleteFunc(s.recent, func(o touch) bool { return now.Sub(o.at) >= j.Window })
	if i := slices.IndexFunc(s.recent, func(o touch) bool { return o.what == t }); i >= 0 {
		s.recent[i].at = now
	} else {
		s.recent = append(s.recent, touch{t, now})
	}
	if len(s.recent) >= j.Ports {
		j.beginScanLocked(s, c, a, now)
		return
	}
	k := keyOf(&a)
	for i := range s.held {
		if h := &s.held[i]; keyOf(&h.alert) == k {
			h.by[c.Record.Direction] += a.Count
			h.alert.Last = later(h.alert.Last, a.Last)
			return
		}
	}
	h := held{alert: a, due: now.Add(j.Hold)}
	h.by[c.Record.Direction] = a.Count
	s.held = append(s.held, h)
}

// beginScanLocked turns what a client has held into the beginning of a scan.
func (j *Judge) beginScanLocked(s *suspect, c *Case, a Alert, now time.Time) {
	sc := &scan{touched: make(map[uint64]struct{}), began: now}
	sc.alert = Alert{Kind: PortScan, Severity: High, Client: a.Client, Server: a.Server, Verdict: a.Verdict,
		First: a.First, Last: a.Last, Node: j.Node}
	for _, h := range s.held {
		sc.join(h.alert, h.by)
	}
	for _, t := range s.recent {
		sc.touched[t.what] = struct{}{}
		j.attempts++
	}
	s.scan, s.held, s.recent = sc, nil, nil
	j.hitLocked(sc, c, a, now)
}

// hitLocked adds one attempt to a scan.
func (j *Judge) hitLocked(sc *scan, c *Case, a Alert, now time.Time) {
	t := touchOf(c)
	if _, ok := sc.touched[t]; !ok && j.attempts < j.Attempts {
		sc.touched[t] = struct{}{}
		j.attempts++
	}
	sc.lastHit = now
	var by [3]uint64
	by[c.Record.Direction] = a.Count
	sc.join(a, by)
}

// join takes an alert into the scan's.
func (sc *scan) join(a Alert, by [3]uint64) {
	for i, n := range by {
		sc.by[i] += n
	}
	if a.First.Before(sc.alert.First) {
		sc.alert.First = a.First
	}
	sc.alert.Last = later(sc.alert.Last, a.Last)
	sc.alert.Verdict = max(sc.alert.Verdict, a.Verdict) // one that was let through matters more than all that were stopped
	if a.Server.Service != sc.alert.Server.Service {
		sc.alert.Server = Party{Service: several}
	}
}

// Due returns what was held long enough: connections, scans that paused or went on for too long,
// and once a window the update of a scan that goes on.
func (j *Judge) Due() []Held {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.defaultsLocked()
	return j.dueLocked(j.Now(), false)
}

// Flush returns all that is held: for a daemon that stops.
func (j *Judge) Flush() []Held {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.defaultsLocked()
	return j.dueLocked(j.Now(), true)
}

func (j *Judge) dueLocked(now time.Time, all bool) (out []Held) {
	for k, s := range j.suspects {
		keep := s.held[:0]
		for _, h := range s.held {
			if !all && now.Before(h.due) {
				keep = append(keep, h)
				continue
			}
			out = h.release(out)
		}
		s.held = keep
		if s.scan != nil {
			out = j.scanDueLocked(out, s.scan, now, all)
			if now.Sub(s.scan.lastHit) >= j.Window {
				j.attempts -= len(s.scan.touched)
				s.scan = nil
			}
		}
		if s.scan == nil && len(s.held) == 0 && now.Sub(s.last) >= j.Window {
			delete(j.suspects, k)
			if k.workload == "" && k.end.Kind == identity.World && k.end.Addr.IsValid() {
				j.world--
			}
		}
	}
	slices.SortFunc(out, func(a, b Held) int {
		return cmp.Or(a.Alert.First.Compare(b.Alert.First), cmp.Compare(a.Alert.Client.name(), b.Alert.Client.name()),
			cmp.Compare(a.Alert.Port, b.Alert.Port), cmp.Compare(a.From, b.From))
	})
	return out
}

// release lets a held alert go, once for each end that reported it: Folder counts them apart.
func (h *held) release(out []Held) []Held {
	for dir, n := range h.by {
		if n > 0 {
			a := h.alert
			a.Count = n
			out = append(out, Held{Alert: a, From: policy.Direction(dir)})
		}
	}
	return out
}

func (j *Judge) scanDueLocked(out []Held, sc *scan, now time.Time, all bool) []Held {
	var due bool
	if sc.sent.IsZero() {
		due = all || now.Sub(sc.lastHit) >= j.Hold || now.Sub(sc.began) >= j.LongHold
	} else {
		due = count(sc.by) > sc.sentHits && (all || now.Sub(sc.sent) >= j.Window)
	}
	if !due {
		return out
	}
	a := sc.alert
	a.Time, a.Ports, a.Count = now, len(sc.touched), count(sc.by)
	sc.sent, sc.sentHits = now, a.Count
	what := "ports of " + a.Server.Service
	if a.Server.Service == several {
		what = "(server, port) pairs"
	}
	took := max(a.Last.Sub(a.First).Round(time.Second), time.Second)
	a.Reason = fmt.Sprintf("%s tried %d different %s in %s, all denied or never used before", a.Client.name(), a.Ports, what, took)
	a.Advice = "find out what runs in " + a.Client.name() + "; all that it tried: bulkhead flows --service " + a.Client.Service
	return append(out, Held{Alert: a})
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
