package flow

import (
	"slices"
	"sync"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// How says how an edge came into a baseline.
type How string

const (
	Learned  How = "learned"  // seen while the service was in mode learn
	Accepted How = "accepted" // somebody said so
)

// Known is an edge of a baseline. One edge lies in the baselines of both its services, and each
// service takes it on its own.
type Known struct {
	Key
	How      How
	At       time.Time // first time that it was taken
	ByClient bool      // in the baseline of the client's service
	ByServer bool      // in the baseline of the server's service
}

// Baseline holds the edges accepted as known behaviour of each service. A service is open (it takes
// every allowed edge that is seen) until Lock, and again after Open. All methods may be called from
// any goroutine.
type Baseline struct {
	lim Limits

	mu      sync.Mutex
	known   map[Key]*Known
	clients map[End]int                    // known edges by who pays, see charge
	locked  map[identity.Service]time.Time // since when
	dirty   map[Key]struct{}
	refused uint64
}

// NewBaseline makes an empty baseline with every service open. It uses Edges and PerClient of lim.
func NewBaseline(lim Limits) *Baseline {
	return &Baseline{
		lim:     lim.withDefaults(),
		known:   make(map[Key]*Known),
		clients: make(map[End]int),
		locked:  make(map[identity.Service]time.Time),
		dirty:   make(map[Key]struct{}),
	}
}

// Lock ends learning for a service, when it leaves mode learn. Locking again changes nothing.
func (b *Baseline) Lock(s identity.Service, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.locked[s]; !ok {
		b.locked[s] = at
	}
}

// Open lets a service learn, which is how every service begins.
func (b *Baseline) Open(s identity.Service) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.locked, s)
}

// Locked says since when a service's baseline is locked.
func (b *Baseline) Locked(s identity.Service) (since time.Time, locked bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	since, locked = b.locked[s]
	return since, locked
}

// Learn takes a sighting of an allowed birth into the baseline of each of its services that is
// open. It must not be told of denied connections, nor of those that only mode alert let through.
// It says whether it took something that was not known.
func (b *Baseline) Learn(s Sighting, at time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := s.Key
	if s.Folded {
		k = k.Wide()
	}
	took := b.takeLocked(k, Learned, at, b.openLocked(k.Client), b.openLocked(k.Server))
	for _, k := range s.More {
		took = b.takeLocked(k, Learned, at, b.openLocked(k.Client), b.openLocked(k.Server)) || took
	}
	return took
}

// Accept takes an edge into the baselines of both its services, locked or not.
func (b *Baseline) Accept(k Key, at time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.takeLocked(k, Accepted, at, k.Client.Kind == identity.Pod, k.Server.Kind == identity.Pod)
}

func (b *Baseline) openLocked(e End) bool {
	if e.Kind != identity.Pod {
		return false
	}
	_, locked := b.locked[e.Service]
	return !locked
}

func (b *Baseline) takeLocked(k Key, how How, at time.Time, byClient, byServer bool) bool {
	if !byClient && !byServer {
		return false
	}
	e := b.known[k]
	if e == nil {
		payer := charge(k)
		if len(b.known) >= b.lim.Edges || b.clients[payer] >= b.lim.PerClient {
			b.refused++
			return false
		}
		e = &Known{Key: k, How: how, At: at}
		b.known[k] = e
		b.clients[payer]++
	}
	took := byClient && !e.ByClient || byServer && !e.ByServer
	earlier := at.Before(e.At)
	if earlier {
		e.At = at
	}
	if took || earlier {
		e.ByClient, e.ByServer = e.ByClient || byClient, e.ByServer || byServer
		b.dirty[k] = struct{}{}
	}
	return took
}

// Knows says whether no locked baseline is broken by a sighting. When one is, it names the service:
// the server's if both are.
func (b *Baseline) Knows(s Sighting) (breaks identity.Service, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if svc, ok := b.knowsLocked(s.Key); !ok {
		return svc, false
	}
	for _, k := range s.More {
		if svc, ok := b.knowsLocked(k); !ok {
			return svc, false
		}
	}
	return identity.Service{}, true
}

func (b *Baseline) knowsLocked(k Key) (identity.Service, bool) {
	has := func(of func(*Known) bool) bool {
		// A world address is known by itself, or because so many were learned that all are.
		for _, k := range [2]Key{k, k.Wide()} {
			if e := b.known[k]; e != nil && of(e) {
				return true
			}
		}
		return false
	}
	if _, locked := b.locked[k.Server.Service]; locked && k.Server.Kind == identity.Pod &&
		!has(func(e *Known) bool { return e.ByServer }) {
		return k.Server.Service, false
	}
	if _, locked := b.locked[k.Client.Service]; locked && k.Client.Kind == identity.Pod &&
		!has(func(e *Known) bool { return e.ByClient }) {
		return k.Client.Service, false
	}
	return identity.Service{}, true
}

// Of returns what the baseline of one service holds, sorted by Key.
func (b *Baseline) Of(s identity.Service) []Known {
	me := End{Kind: identity.Pod, Service: s}
	return b.list(func(e *Known) bool { return e.Client == me && e.ByClient || e.Server == me && e.ByServer })
}

// All returns every known edge, sorted by Key.
func (b *Baseline) All() []Known { return b.list(func(*Known) bool { return true }) }

func (b *Baseline) list(want func(*Known) bool) []Known {
	b.mu.Lock()
	var out []Known
	for _, e := range b.known {
		if want(e) {
			out = append(out, *e)
		}
	}
	b.mu.Unlock()
	slices.SortFunc(out, func(a, b Known) int { return a.Key.Compare(b.Key) })
	return out
}

// Refused counts sightings that found the baseline full.
func (b *Baseline) Refused() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refused
}
