package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/gossip"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// A program that connects once, when it starts, is refused for good where its peer does not know it yet.
// So a start asks the nodes of those peers whose policies would let it in to say when they know it, and
// waits for them for a bounded time; then it goes on, and says so.

const (
	// startNodes bounds the nodes that one start waits for. The others hear of it all the same.
	startNodes = 128
	// startFollow is for how long those that did not answer in time are waited for in the background,
	// to tell how late they were.
	startFollow = 10 * time.Second
	// namedLaggards bounds the nodes that are named.
	namedLaggards = 5
)

// starts is what became of the starts of this node.
type starts struct {
	total, unheard atomic.Uint64
	spans          convergence // until all nodes knew
}

// start is one workload's.
type start struct {
	began time.Time
	mu    sync.Mutex
	nodes []string             // that were asked
	late  int                  // that did not know it when the wait was over
	known map[string]time.Time // since when each did
	all   chan struct{}        // closed when all of them know it
}

// greet asks the nodes of a new workload's peers to know it. before is the index's generation before the
// workload was announced. Nil: there is nobody to ask.
func (c *cluster) greet(w *workload, before uint64) *start {
	if c == nil || c.cfg.StartWait == 0 {
		return nil
	}
	s := &start{began: time.Now(), nodes: c.peerNodes(w, before), known: map[string]time.Time{}, all: make(chan struct{})}
	message, version := c.State.Latest(gossip.Endpoints)
	q := greeting{Message: message, Epoch: version.Epoch, Seq: version.Seq, Wait: uint64(startFollow / time.Millisecond)}
	body, err := askEncoder.Marshal(&q)
	if err != nil {
		panic(err) // texts and numbers
	}
	w.mu.Lock()
	w.start = s
	w.mu.Unlock()
	c.starts.total.Add(1)
	if len(s.nodes) == 0 {
		close(s.all)
		return s
	}
	c.tasks.Add(1)
	go func() {
		defer c.tasks.Done()
		ctx, cancel := context.WithTimeout(c.life, startFollow)
		defer cancel()
		atOnce(len(s.nodes), func(i int) {
			if _, err := c.Ask(ctx, s.nodes[i], "greet", body); err == nil {
				s.note(s.nodes[i])
			}
		})
	}()
	return s
}

// note takes down that a node knows the workload.
func (s *start) note(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[node] = time.Now()
	if len(s.known) == len(s.nodes) {
		close(s.all)
	}
}

// awaitStart waits until all who were asked know a workload, or its time is over.
func (c *cluster) awaitStart(ctx context.Context, w *workload, s *start) {
	if s == nil {
		return
	}
	left := time.NewTimer(c.cfg.StartWait - time.Since(s.began))
	defer left.Stop()
	select {
	case <-s.all:
		if len(s.nodes) > 0 {
			c.starts.spans.add(time.Since(s.began))
		}
		return
	case <-left.C:
	case <-ctx.Done():
	}
	s.mu.Lock()
	laggards := slices.DeleteFunc(slices.Clone(s.nodes), func(node string) bool { _, known := s.known[node]; return known })
	s.late = len(laggards)
	s.mu.Unlock()
	if len(laggards) == 0 {
		return
	}
	c.starts.unheard.Add(1)
	w.log.Warn("starts before all nodes of its peers know it", "count", len(laggards), "nodes", someNodes(laggards), "took", time.Since(s.began))
}

func someNodes(names []string) string {
	if len(names) > namedLaggards {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:namedLaggards], ", "), len(names)-namedLaggards)
	}
	return strings.Join(names, ", ")
}

// peerNodes lists the living nodes that have workloads whose policies mean this one, unless they let
// everything pass anyway.
func (c *cluster) peerNodes(w *workload, before uint64) []string {
	view, m := c.d.index.View(), c.d.modes.Load()
	affected := c.d.rules.Load().set.Affected(view, deltaOf(view, before, w.id))
	alive := map[string]bool{}
	for _, node := range c.others(gossip.Alive) {
		alive[node] = true
	}
	var out []string
	for _, x := range view.Workloads {
		if alive[x.Node] && m.of(x.Service) != policy.Learn && affected.Includes(x) {
			delete(alive, x.Node)
			out = append(out, x.Node)
		}
	}
	slices.Sort(out)
	return out[:min(len(out), startNodes)]
}

// deltaOf is what came since a generation: of workloads only this one. Where too much changed meanwhile
// it is the workload alone.
func deltaOf(view *identity.View, before uint64, id string) identity.Delta {
	d := view.Since(before)
	me := view.Workload(id)
	if me == nil {
		return identity.Delta{}
	}
	return identity.Delta{Changes: []identity.Change{{After: me}}, VIPs: d.VIPs}
}

func (w *workload) began() *start {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.start
}

// row is how a start went as the API tells it; nil: it was not looked at.
func (s *start) row() *api.Start {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &api.Start{Nodes: len(s.nodes), Known: len(s.nodes) - s.late}
	for _, node := range s.nodes {
		at, known := s.known[node]
		if !known {
			out.Unknown = append(out.Unknown, node)
			continue
		}
		out.Seconds = max(out.Seconds, at.Sub(s.began).Seconds())
	}
	out.Unknown = out.Unknown[:min(len(out.Unknown), namedLaggards)]
	return out
}
