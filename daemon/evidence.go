package daemon

import (
	"cmp"
	"slices"
	"time"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

const (
	// maxShadowEdges bounds the edges that one shadow keeps, maxAllShadowEdges those of all together.
	// What finds them full is counted all the same.
	maxShadowEdges    = 256
	maxAllShadowEdges = 32_768
	// maxExamples bounds the pairs of workloads named per edge.
	maxExamples = 3
	// maxPhases bounds the services whose life phases one shadow keeps.
	maxPhases = 1024
	// startPhase is how long a workload is starting: what it does only then (migrations, warming caches)
	// it does not do again before the next start.
	startPhase = time.Minute
)

// StoredEvidence is what one shadow has seen: connections (datagrams for UDP) at the ends that it
// selects, judged by what is in force and by that with all shadows in force.
type StoredEvidence struct {
	Text  Hash      `json:"text"` // of the shadow: another text has seen nothing yet
	Since time.Time `json:"since"`

	Passed  uint64 `json:"passed"`  // allowed by both
	Denied  uint64 `json:"denied"`  // allowed by what is in force only
	Opened  uint64 `json:"opened"`  // allowed by the shadows only
	Refused uint64 `json:"refused"` // denied by both
	Beyond  uint64 `json:"beyond,omitempty"`

	Edges  []ShadowEdge   `json:"edges,omitempty"`
	Phases []ServicePhase `json:"phases,omitempty"`

	After uint64 `json:"after,omitempty"` // it takes force by itself on so many connections; 0: it does not
}

// ShadowEdge is an edge on which a shadow and what is in force differ.
type ShadowEdge struct {
	ShadowKey
	Count    uint64    `json:"count"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	Examples []string  `json:"examples,omitempty"`
	Reason   string    `json:"reason"`

	told   time.Time // when an alert last told of it
	untold uint64    // connections since
}

// ShadowKey tells them apart.
type ShadowKey struct {
	flow.Key
	AtServer bool `json:"atServer,omitempty"` // the end that the shadow selects: the server's ingress, else the client's egress
	Opened   bool `json:"opened,omitempty"`
}

func (k ShadowKey) direction() policy.Direction {
	if k.AtServer {
		return policy.Ingress
	}
	return policy.Egress
}

// ServicePhase is how much of a service's life a shadow has seen.
type ServicePhase struct {
	Service identity.Service `json:"service"`
	Start   bool             `json:"start,omitempty"`  // a workload of it started, and it was seen from its first packet
	Early   uint64           `json:"early,omitempty"`  // connections that pass, of workloads that were starting
	Steady  uint64           `json:"steady,omitempty"` // and of those that were not
}

// evidence is a StoredEvidence while it grows.
type evidence struct {
	StoredEvidence
	edges  map[ShadowKey]*ShadowEdge
	phases map[identity.Service]*ServicePhase
	dirty  bool
}

func newEvidence(from StoredEvidence) *evidence {
	e := &evidence{StoredEvidence: from, edges: map[ShadowKey]*ShadowEdge{}, phases: map[identity.Service]*ServicePhase{}}
	for _, x := range from.Edges {
		e.edges[x.ShadowKey] = &x
	}
	for _, p := range from.Phases {
		e.phases[p.Service] = &p
	}
	e.Edges, e.Phases = nil, nil
	return e
}

// stored is a copy, sorted, most connections first.
func (e *evidence) stored() *StoredEvidence {
	out := e.StoredEvidence
	for _, x := range e.edges {
		c := *x
		c.Examples = slices.Clone(x.Examples)
		out.Edges = append(out.Edges, c)
	}
	slices.SortFunc(out.Edges, func(a, b ShadowEdge) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), a.Key.Compare(b.Key), cmp.Compare(a.direction(), b.direction()))
	})
	for _, p := range e.phases {
		out.Phases = append(out.Phases, *p)
	}
	slices.SortFunc(out.Phases, func(a, b ServicePhase) int { return cmpService(a.Service, b.Service) })
	return &out
}

// trialResult is one record as both sets of policies judge the reporting end.
type trialResult struct {
	key          ShadowKey
	time         time.Time
	count        uint64
	now, then    policy.Verdict
	reason       string // why it would be denied, or was
	example      string
	service      identity.Service // of the end that the shadow selects
	since        time.Time        // when its workload began
	startSeen    bool
	edgesAllowed bool // there is room for another edge
}

// add counts a record, and gives the edge where the shadow differs and there was room to keep it.
func (e *evidence) add(r *trialResult) *ShadowEdge {
	e.dirty = true
	switch {
	case r.now == policy.Allow && r.then == policy.Allow:
		e.Passed += r.count
		e.pass(r)
		return nil
	case r.now == policy.Allow:
		e.Denied += r.count
	case r.then == policy.Allow:
		e.Opened += r.count
	default:
		e.Refused += r.count
		return nil
	}
	key := r.key
	key.Opened = r.then == policy.Allow
	x := e.edges[key]
	if x == nil {
		if len(e.edges) >= maxShadowEdges || !r.edgesAllowed {
			e.Beyond += r.count
			return nil
		}
		x = &ShadowEdge{ShadowKey: key, First: r.time}
		e.edges[key] = x
	}
	x.Count += r.count
	x.untold += r.count
	x.Reason = r.reason
	if r.time.After(x.Last) {
		x.Last = r.time
	}
	if len(x.Examples) < maxExamples && !slices.Contains(x.Examples, r.example) {
		x.Examples = append(x.Examples, r.example)
	}
	return x
}

// pass counts a connection that passes for the life phase its workload was in.
func (e *evidence) pass(r *trialResult) {
	p := e.phases[r.service]
	if p == nil {
		if len(e.phases) >= maxPhases {
			return
		}
		p = &ServicePhase{Service: r.service}
		e.phases[r.service] = p
	}
	if r.startSeen && !r.since.Before(e.Since) {
		p.Start = true
	}
	if r.startSeen && r.time.Sub(r.since) < startPhase {
		p.Early += r.count
	} else {
		p.Steady += r.count
	}
}
