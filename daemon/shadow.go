package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

const (
	// shadowBeat is how often evidence is written, and those that wait for it are looked at: what a
	// crash may lose of it.
	shadowBeat = 2 * time.Second
	// shadowAlerts is how long an edge that a shadow would deny rests after an alert told of it.
	shadowAlerts = 10 * time.Minute
)

// shadows is what every shadow has seen.
type shadows struct {
	mu    sync.Mutex
	seen  map[slot]*evidence
	edges int // of all
}

// follow makes the evidence that of these shadows: what is gone, or has another text, is forgotten,
// what is new begins.
func (s *shadows) follow(rb *rulebook) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, e := range s.seen {
		if h, held := rb.held[at]; !held || hashOf(h.Text) != e.Text {
			delete(s.seen, at)
		}
	}
	for at, h := range rb.held {
		if at.shadow && s.seen[at] == nil {
			s.seen[at] = newEvidence(StoredEvidence{Text: hashOf(h.Text), Since: h.applied})
		}
	}
	s.countLocked()
}

func (s *shadows) countLocked() {
	s.edges = 0
	for _, e := range s.seen {
		s.edges += len(e.edges)
	}
}

// restore takes evidence from the store; follow then throws away what is stale.
func (s *shadows) restore(stored map[string]StoredEvidence) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, e := range stored {
		if at, err := parseSlot(key); err == nil {
			s.seen[at] = newEvidence(e)
		}
	}
	s.countLocked()
}

// of gives a copy of what a shadow has seen, or nil.
func (s *shadows) of(at slot) *StoredEvidence {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.seen[at]; e != nil {
		return e.stored()
	}
	return nil
}

// dirty gives copies of what changed since the last call.
func (s *shadows) dirty() map[string]*StoredEvidence {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]*StoredEvidence{}
	for at, e := range s.seen {
		if e.dirty {
			out[at.store()] = e.stored()
			e.dirty = false
		}
	}
	return out
}

// redo marks what could not be written.
func (s *shadows) redo(unwritten map[string]*StoredEvidence) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, e := range s.seen {
		if _, is := unwritten[at.store()]; is {
			e.dirty = true
		}
	}
}

// add counts a record for the shadows that select the end it is about, and gives what is to be told.
func (s *shadows) add(of []slot, r trialResult) []alert.Alert {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []alert.Alert
	for _, at := range of {
		e := s.seen[at]
		if e == nil {
			continue // promoted or removed at this moment
		}
		had := len(e.edges)
		r.edgesAllowed = s.edges < maxAllShadowEdges
		x := e.add(&r)
		s.edges += len(e.edges) - had
		if x == nil || x.Opened || r.time.Sub(x.told) < shadowAlerts && !x.told.IsZero() {
			continue
		}
		out = append(out, shadowAlert(at, x, &r))
		x.told, x.untold = r.time, 0
	}
	return out
}

func shadowAlert(at slot, x *ShadowEdge, r *trialResult) alert.Alert {
	return alert.Alert{
		Kind: alert.Shadow, Severity: alert.Low, Protocol: x.Protocol, Port: x.Port, Verdict: policy.Allow, Count: max(x.untold, 1),
		First: x.First, Last: r.time, Breaks: "shadow " + slot{Key: at.Key}.String(),
		Reason: fmt.Sprintf("%s on %s passed, and the shadow %s would deny it: %s", r.example, flow.PortName(x.Protocol, x.Port), slot{Key: at.Key}, x.Reason),
		Advice: fmt.Sprintf("if it belongs there, allow it in the shadow and apply it again; all that it would deny: bulkhead policy shadow %s", at.Namespace+"/"+at.Name),
	}
}

// try judges a record by the shadows, where some select the end that reported it. Only records of the
// workload's own namespace count, and only what says who opened: each connection once at each end.
func (d *Daemon) try(self *identity.Workload, r *flow.Record, c policy.Connection, key flow.Key) {
	rb := d.rules.Load()
	if rb.trials == nil || self == nil || r.Sensor != flow.InNamespace || r.Direction == 0 || r.Event == flow.Usage && r.Count == 0 {
		return
	}
	of := rb.trials.selecting(self, r.Direction)
	if len(of) == 0 {
		return
	}
	view := d.index.View()
	now, then := rb.set.Evaluate(view, c), rb.trials.set.Evaluate(view, c)
	is, would := now.Egress, then.Egress
	if r.Direction == policy.Ingress {
		is, would = now.Ingress, then.Ingress
	}
	t := trialResult{key: ShadowKey{Key: key, AtServer: r.Direction == policy.Ingress}, time: r.Time, count: max(r.Count, 1), now: is.Verdict, then: would.Verdict,
		reason: would.Reason, service: self.Service, since: self.Since,
		example: peerText(c.Client) + " → " + peerText(c.Server), startSeen: d.startSeen(self.ID)}
	for _, a := range d.shadows.add(of, t) {
		a.Client, a.Server = party(c.Client), party(c.Server)
		a.Node, a.Time = d.cfg.Node, r.Time
		d.alerts.Send(a)
	}
}

func (d *Daemon) startSeen(id string) bool {
	d.mu.Lock()
	w := d.workloads[id]
	d.mu.Unlock()
	return w != nil && w.stored().StartSeen
}

func party(p identity.Peer) alert.Party {
	out := alert.Party{Service: flow.EndOf(p).String(), Addr: p.Addr}
	if p.Kind == identity.World {
		out.Service = "world"
	}
	if p.Workload != nil && p.Kind == identity.Pod {
		out.Workload = p.Workload.Namespace + "/" + p.Workload.Name
	}
	return out
}

// peerText names an end with its address: "shop/web-1 (10.88.0.2)".
func peerText(p identity.Peer) string {
	name := p.String()
	if p.Workload != nil && p.Kind == identity.Pod {
		name = p.Workload.Namespace + "/" + p.Workload.Name
	}
	if p.Addr == (netip.Addr{}) || p.Kind == identity.World {
		return name
	}
	return name + " (" + p.Addr.String() + ")"
}

// trials is what is needed to judge by the shadows.
type trials struct {
	set  *policy.Set // with every shadow in force
	only *policy.Set // the shadows, as if nothing else were in force
}

// newTrials gives nil where nothing is a shadow.
func newTrials(rb *rulebook) (*trials, error) {
	var list []policy.Policy
	for s, h := range rb.held {
		if s.shadow {
			h.Policy.Shadow = false
			list = append(list, h.Policy)
		}
	}
	if len(list) == 0 {
		return nil, nil
	}
	only, err := policy.NewSet(list...)
	return &trials{set: rb.promoted(), only: only}, err
}

// selecting lists the shadows that have a say on a workload in a direction.
func (t *trials) selecting(w *identity.Workload, dir policy.Direction) []slot {
	var out []slot
	for _, p := range t.only.About(w, dir) {
		out = append(out, slot{p.Key(), true})
	}
	return out
}

// routineShadows writes evidence and promotes what waited for it, until ctx ends.
func (d *Daemon) routineShadows(ctx context.Context) error {
	return every(ctx, shadowBeat, func() {
		d.storeEvidence()
		d.promoteArmed(ctx)
	})
}

// storeEvidence writes what changed of it. A change of policies may throw some of it away meanwhile:
// it holds d.change.
func (d *Daemon) storeEvidence() {
	d.change.Lock()
	defer d.change.Unlock()
	changed := d.shadows.dirty()
	if err := d.store.Commit(Change{Evidence: changed}); err != nil {
		d.shadows.redo(changed)
		d.warn("evidence", fmt.Sprintf("what shadows have seen is not stored: %v", err))
		return
	}
	d.warn("evidence", "")
}

// shadowRow is what a shadow has seen as the API tells it.
func (d *Daemon) shadowRow(rb *rulebook, at slot) *api.Shadow {
	e := d.shadows.of(at)
	if e == nil {
		return nil
	}
	out := &api.Shadow{Since: e.Since, Passed: e.Passed, Denied: e.Denied, Opened: e.Opened, Refused: e.Refused, Beyond: e.Beyond, After: e.After,
		Missing: append(d.unproven(rb, []slot{at}, d.neededFor(e)), d.stillDenied(rb, []slot{at}, nil)...)}
	for _, x := range e.Edges {
		row := api.ShadowEdge{Client: x.Client.String(), Server: x.Server.String(), Protocol: x.Protocol.String(), Port: x.Port,
			Direction: x.direction().String(), Verdict: "deny", Count: x.Count, First: x.First, Last: x.Last, Examples: x.Examples, Reason: x.Reason}
		if x.Opened {
			row.Verdict = "allow"
		}
		out.Edges = append(out.Edges, row)
	}
	return out
}
