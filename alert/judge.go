package alert

import (
	"sync"
	"time"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Case is everything that is known of one record.
type Case struct {
	Record     flow.Record
	Workload   *identity.Workload // that reported: in whose namespace or at whose guard it was
	Client     identity.Peer
	Server     identity.Peer
	Names      []string           // DNS names under which the client knows the server's address
	Backends   []identity.Backend // behind the server's address, where that is virtual
	Sighting   flow.Sighting      // what Graph.Observe made of it; may be zero for Spoof and Raw
	Decision   policy.Decision
	ClientMode policy.Mode      // of the client's service
	ServerMode policy.Mode      // of the server's service
	Known      bool             // no locked baseline is broken, see flow.Baseline.Knows
	Baseline   identity.Service // whose locked baseline is broken, where Known is false
}

// Judge decides which cases are odd, and why. What is denied or new is held back for a moment, so
// that a scan is one alert and not its first dozen attempts as well. Methods may be called from any
// goroutine.
type Judge struct {
	Node      string           // written into every alert
	Ports     int              // distinct (server, port) denied or new within Window that make a scan; default 15
	Window    time.Duration    // default 60 s
	Hold      time.Duration    // how long a denied or new connection is held back; default 1 s
	LongHold  time.Duration    // at most so long a scan that goes on is held back; default 5 s
	Clients   int              // clients watched; default 4096. Beyond them all others are one
	Addresses int              // of these, addresses of the world; default 256
	Attempts  int              // distinct (server, port) counted of all scans together; default 262144
	Now       func() time.Time // default time.Now

	mu       sync.Mutex
	suspects map[suspectKey]*suspect
	world    int // suspects that are addresses of the world
	attempts int // in all suspects' scans
}

// Judge says what is odd about a case, or nil. It returns at once what concerns no scan (spoof,
// raw-socket); what is denied or new comes out of Due.
//
// Its rules, in order: a frame that the guard stopped is odd; a denied packet and one that mode
// alert let through are odd; a birth that a locked baseline does not know is odd, unless the other
// end denies it and will say so.
func (j *Judge) Judge(c Case) *Alert {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.defaultsLocked()
	r := &c.Record
	switch {
	case r.Event == flow.Spoof:
		return j.finish(spoof(&c))
	case r.Event == flow.Raw:
		return j.finish(rawSocket(&c))
	case r.Event == flow.Denied, r.Event == flow.Birth && r.Verdict != policy.Allow:
		if r.Direction == policy.Ingress && coveredByClient(&c) {
			return nil
		}
		j.holdLocked(&c, *j.finish(denied(&c)))
	case r.Event == flow.Birth && !c.Known && c.Outcome() == policy.Allow:
		j.holdLocked(&c, *j.finish(newEdge(&c)))
	}
	return nil
}

// coveredByClient says that the client's own end is on this node and denies the connection as well:
// its record tells the story with the client's name, so the server's is not a second alert.
func coveredByClient(c *Case) bool {
	w := c.Client.Workload
	return w != nil && w.Local && c.ClientMode != policy.Learn && sideVerdict(c.Decision.Egress, c.ClientMode) != policy.Allow &&
		sideVerdict(c.Decision.Egress, c.ClientMode) <= sideVerdict(c.Decision.Ingress, c.ServerMode)
}

// sideVerdict is what an end's mode makes of what policy says of it.
func sideVerdict(d policy.SideDecision, m policy.Mode) policy.Verdict {
	switch {
	case d.Verdict == policy.Allow || m == policy.Learn:
		return policy.Allow
	case m == policy.AlertMode:
		return policy.Alert
	}
	return policy.Deny
}

// Outcome is what becomes of the connection: the stricter end wins, and what the kernel did counts.
// Only what it says Allow of may teach a baseline: the end that reported may have let out what the
// other end will stop.
func (c *Case) Outcome() policy.Verdict {
	return min(c.Record.Verdict, sideVerdict(c.Decision.Egress, c.ClientMode), sideVerdict(c.Decision.Ingress, c.ServerMode))
}

func (j *Judge) finish(a Alert) *Alert {
	a.Node, a.Count = j.Node, max(a.Count, 1)
	if a.Time.IsZero() {
		a.Time = a.Last
	}
	return &a
}

func (j *Judge) defaultsLocked() {
	if j.Now == nil {
		j.Now = time.Now
	}
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	set(&j.Window, time.Minute)
	set(&j.Hold, time.Second)
	set(&j.LongHold, 5*time.Second)
	bound := func(n *int, to int) {
		if *n <= 0 {
			*n = to
		}
	}
	bound(&j.Ports, 15)
	bound(&j.Clients, 4096)
	bound(&j.Addresses, 256)
	bound(&j.Attempts, 262144)
	if j.suspects == nil {
		j.suspects = make(map[suspectKey]*suspect)
	}
}
