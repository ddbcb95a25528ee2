package alert

import (
	"cmp"
	"net/netip"
	"sync"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Folder sends the first of equal alerts at once and counts the rest: when its window ends, repeats
// go out as one update, the same alert with the same First and the new Count. Clients never fold
// together; the workloads of one server do.
type Folder struct {
	Window time.Duration    // from the first of equal alerts; default 60 s
	Keys   int              // different alerts remembered; default 4096. The oldest's window ends early beyond it
	Now    func() time.Time // default time.Now

	mu    sync.Mutex
	seen  map[foldKey]*folding
	order []foldKey // by begin of window
}

// foldKey is everything of an alert but times, counts, and which workload of a service answered (the
// reason of what policy or a baseline says may name it).
type foldKey struct {
	kind     Kind
	client   Party
	server   string
	addr     netip.Addr // of the server, where it has no workload
	protocol identity.Protocol
	port     uint16
	verdict  policy.Verdict
	reason   string
	breaks   string
}

func keyOf(a *Alert) foldKey {
	k := foldKey{kind: a.Kind, client: a.Client, server: a.Server.Service, protocol: a.Protocol, port: a.Port,
		verdict: a.Verdict, breaks: a.Breaks}
	if a.Kind != DeniedBy && a.Kind != NewEdge {
		k.reason = cmp.Or(a.cause, a.Reason)
	}
	if a.Server.Service == "world" {
		k.addr = a.Server.Addr
	}
	return k
}

// folding is one window.
type folding struct {
	alert   Alert
	began   time.Time
	by      [3]uint64 // counts by the end that reported, by policy.Direction; 0 for none
	yielded uint64    // Count when it was last sent
}

// count is how often something happened, from the counts by reporting end: the end that saw more of
// it, since both may report one connection.
func count(by [3]uint64) uint64 { return by[0] + max(by[policy.Egress], by[policy.Ingress]) }

// Add takes an alert that the given end reported (0 where that has no meaning). It returns what is
// to be sent now: the alert when it is the first of its kind, an update when its window just ended,
// both, or nothing.
func (f *Folder) Add(a Alert, from policy.Direction) []Alert {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.defaultsLocked()
	now := f.Now()
	out := f.dueLocked(now)
	if a.Count == 0 {
		a.Count = 1
	}
	if a.Kind == PortScan { // folded by Judge, over all its ports
		a.Time = now
		return append(out, a)
	}
	k := keyOf(&a)
	if old := f.seen[k]; old != nil {
		old.by[from] += a.Count
		if a.Last.After(old.alert.Last) {
			old.alert.Last = a.Last
		}
		return out
	}
	for len(f.order) >= f.Keys {
		out = f.endLocked(out, now)
	}
	a.Time = now
	w := &folding{alert: a, began: now, yielded: a.Count}
	w.by[from] = a.Count
	f.seen[k] = w
	f.order = append(f.order, k)
	return append(out, a)
}

// Due returns the updates of windows that ended.
func (f *Folder) Due() []Alert {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.defaultsLocked()
	return f.dueLocked(f.Now())
}

// Flush ends all windows: for a daemon that stops.
func (f *Folder) Flush() []Alert {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.defaultsLocked()
	var out []Alert
	for len(f.order) > 0 {
		out = f.endLocked(out, f.Now())
	}
	return out
}

func (f *Folder) dueLocked(now time.Time) (out []Alert) {
	for len(f.order) > 0 && now.Sub(f.seen[f.order[0]].began) >= f.Window {
		out = f.endLocked(out, now)
	}
	return out
}

// endLocked ends the oldest window and appends its update, if it had repeats.
func (f *Folder) endLocked(out []Alert, now time.Time) []Alert {
	k := f.order[0]
	f.order = f.order[1:]
	w := f.seen[k]
	delete(f.seen, k)
	if n := count(w.by); n > w.yielded {
		a := w.alert
		a.Time, a.Count = now, n
		out = append(out, a)
	}
	return out
}

func (f *Folder) defaultsLocked() {
	if f.Window <= 0 {
		f.Window = time.Minute
	}
	if f.Keys <= 0 {
		f.Keys = 4096
	}
	if f.Now == nil {
		f.Now = time.Now
	}
	if f.seen == nil {
		f.seen = make(map[foldKey]*folding)
	}
}
