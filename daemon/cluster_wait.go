package daemon

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/gossip"
)

const (
	// measuredNodes bounds how many nodes are asked for how long a write took, when nobody waits for it.
	measuredNodes = 32
	// measureWait bounds how long they have.
	measureWait = 10 * time.Second
	// keptSamples bounds the spans that are kept.
	keptSamples = 1024
	// askedAtOnce bounds questions under way.
	askedAtOnce = 64
)

// convergence is how long writes of this node took until they were in force on others.
type convergence struct {
	mu      sync.Mutex
	samples []time.Duration // the latest, as a ring
	next    int
	missed  uint64
	busy    bool // one write is measured at a time
}

func (v *convergence) add(d time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.samples) < keptSamples {
		v.samples = append(v.samples, d)
		return
	}
	v.samples[v.next] = d
	v.next = (v.next + 1) % keptSamples
}

// row is nil where nothing was measured.
func (v *convergence) row() *api.Convergence {
	v.mu.Lock()
	sorted := slices.Clone(v.samples)
	out := &api.Convergence{Samples: len(sorted), Missed: v.missed}
	v.mu.Unlock()
	if len(sorted) == 0 {
		return nil
	}
	slices.Sort(sorted)
	at := func(percent int) float64 { return sorted[min(len(sorted)-1, len(sorted)*percent/100)].Seconds() }
	out.P50, out.P99 = at(50), at(99)
	return out
}

// measure asks others in the background when a write is in force there.
func (c *cluster) measure(said []gossip.Record, begin time.Time) {
	if c == nil || len(said) == 0 {
		return
	}
	c.spans.mu.Lock()
	busy := c.spans.busy
	c.spans.busy = true
	c.spans.mu.Unlock()
	if busy {
		return
	}
	c.tasks.Add(1)
	go func() {
		defer c.tasks.Done()
		ctx, cancel := context.WithTimeout(c.life, measureWait)
		defer cancel()
		nodes := c.others(gossip.Alive)
		rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		c.askAll(ctx, nodes[:min(len(nodes), measuredNodes)], said, begin)
		c.spans.mu.Lock()
		c.spans.busy = false
		c.spans.mu.Unlock()
	}()
}

// others lists the other nodes in a status.
func (c *cluster) others(s gossip.Status) []string {
	var out []string
	for _, m := range c.Members() {
		if m.Node != c.d.cfg.Node && m.Status == s {
			out = append(out, m.Node)
		}
	}
	return out
}

// await waits for all nodes, as long as a request says; nil where there are none to wait for.
func (c *cluster) await(ctx context.Context, span string, said []gossip.Record, begin time.Time) []api.NodeForce {
	wait, err := time.ParseDuration(span)
	if c == nil || err != nil { // was checked
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return c.awaitForce(ctx, said, begin)
}

// awaitForce waits until writes are in force on all nodes, as long as ctx lives, and says how each does,
// by name. Those that are dead take them when they are back.
func (c *cluster) awaitForce(ctx context.Context, said []gossip.Record, begin time.Time) []api.NodeForce {
	dead := c.others(gossip.Dead)
	out := c.askAll(ctx, c.others(gossip.Alive), said, begin)
	for _, node := range dead {
		if !slices.ContainsFunc(out, func(n api.NodeForce) bool { return n.Node == node }) { // it came back meanwhile
			out = append(out, api.NodeForce{Node: node, Error: "dead; it takes the change when it is back"})
		}
	}
	slices.SortFunc(out, func(a, b api.NodeForce) int { return strings.Compare(a.Node, b.Node) })
	return out
}

// askAll asks nodes, some at a time, and waits for all.
func (c *cluster) askAll(ctx context.Context, nodes []string, said []gossip.Record, begin time.Time) []api.NodeForce {
	body, err := askEncoder.Marshal(&askForce{List: writesOf(said), Wait: true})
	if err != nil {
		panic(err) // texts and numbers
	}
	out := make([]api.NodeForce, len(nodes))
	atOnce(len(nodes), func(i int) { out[i] = c.askOne(ctx, nodes[i], body, begin) })
	return out
}

// atOnce calls do for every number below n, askedAtOnce of them at a time, and waits for all.
func atOnce(n int, do func(int)) {
	turns := make(chan struct{}, askedAtOnce)
	var wait sync.WaitGroup
	for i := range n {
		turns <- struct{}{}
		wait.Add(1)
		go func() {
			defer wait.Done()
			defer func() { <-turns }()
			do(i)
		}()
	}
	wait.Wait()
}

func (c *cluster) askOne(ctx context.Context, node string, body []byte, begin time.Time) api.NodeForce {
	out := api.NodeForce{Node: node}
	raw, err := c.Ask(ctx, node, "force", body)
	var a forceAnswer
	if err == nil {
		err = askDecoder.Unmarshal(raw, &a)
	}
	switch {
	case err != nil:
		out.Error = err.Error()
	case len(a.Refused) > 0:
		out.Error = strings.Join(a.Refused[:min(3, len(a.Refused))], "; ")
	case len(a.Lack) > 0:
		out.Error = "not in force there yet"
	default:
		took := time.Since(begin)
		out.InForce, out.Seconds = true, took.Seconds()
		c.spans.add(took)
	}
	if !out.InForce {
		c.spans.mu.Lock()
		c.spans.missed++
		c.spans.mu.Unlock()
	}
	out.Workloads, out.Of = a.Workloads, a.Of
	return out
}

// maxWait bounds how long a call waits for other nodes.
const maxWait = 10 * time.Minute

// goodWait says whether a request's wait is none, or a span that can be waited.
func goodWait(span string) bool {
	d, err := time.ParseDuration(span)
	return span == "" || err == nil && d > 0 && d <= maxWait
}
