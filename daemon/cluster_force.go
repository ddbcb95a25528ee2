package daemon

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/bulkhead-firewall/bulkhead/gossip"
)

// force is which writes to registers are in force on this node.
type force struct {
	mu      sync.Mutex
	at      map[gossip.ID]gossip.Timestamp // bounded by the registers
	settled bool                           // the workloads held all of it when it was last changed
	moved   chan struct{}                  // closed at the next change
}

func newForce() force {
	return force{at: map[gossip.ID]gossip.Timestamp{}, moved: make(chan struct{})}
}

// took notes that writes are in force on this node; settled: in all of its workloads.
func (c *cluster) took(said []gossip.Record, settled bool) {
	if c == nil {
		return
	}
	f := &c.forced
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, rec := range said {
		f.at[rec.ID()] = rec.Time
	}
	f.settled = settled
	close(f.moved)
	f.moved = make(chan struct{})
}

// askForce asks a node whether, and when, writes are in force there.
type askForce struct {
	_    struct{} `cbor:",toarray"`
	List []writeTime
	Wait bool // until they are
}

// writeTime is one write, without what was written.
type writeTime struct {
	_     struct{} `cbor:",toarray"`
	Class string
	Key   string
	Time  uint64
}

// forceAnswer is what a node says to that.
type forceAnswer struct {
	_          struct{} `cbor:",toarray"`
	Lack       []uint32 // writes that are not in force there, by their place in the list
	Refused    []string // why, of those that it cannot take
	Workloads  int      // that hold what is in force there
	Of         int      // that run there
	Generation uint64

	known bool // it has answered
}

func writesOf(list []gossip.Record) []writeTime {
	out := make([]writeTime, 0, len(list))
	for _, rec := range list {
		out = append(out, writeTime{Class: rec.Class, Key: rec.Key, Time: uint64(rec.Time)})
	}
	return out
}

// onForce answers askForce.
func (c *cluster) onForce(ctx context.Context, _ string, body []byte) ([]byte, error) {
	var q askForce
	if err := askDecoder.Unmarshal(body, &q); err != nil {
		return nil, fmt.Errorf("malformed question: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, settleWait)
	defer cancel()
	for {
		c.forced.mu.Lock()
		moved := c.forced.moved
		c.forced.mu.Unlock()
		a := c.standing(q.List)
		if !q.Wait || len(a.Lack) == len(a.Refused) {
			a.Workloads, a.Of = c.holding(ctx), len(c.d.local())
			return askEncoder.Marshal(a)
		}
		select {
		case <-moved:
		case <-time.After(time.Second): // one may be refused meanwhile, or beaten
		case <-ctx.Done():
			a.Of = len(c.d.local())
			return askEncoder.Marshal(a)
		}
	}
}

// standing says which of the writes are not in force here. One that another write has beaten does not
// count when that one is.
func (c *cluster) standing(list []writeTime) forceAnswer {
	a := forceAnswer{Generation: c.d.generation.Load()}
	for i, w := range list {
		id := gossip.ID{Class: w.Class, Key: w.Key}
		rec, known := c.State.Look(w.Class, w.Key)
		c.forced.mu.Lock()
		at, took := c.forced.at[id]
		c.forced.mu.Unlock()
		if known && rec.Time >= gossip.Timestamp(w.Time) && took && at == rec.Time {
			continue
		}
		a.Lack = append(a.Lack, uint32(i))
		c.mu.Lock()
		if r, refused := c.refused[id]; refused && r.time == gossip.Timestamp(w.Time) {
			a.Refused = append(a.Refused, r.err.Error())
		}
		c.mu.Unlock()
	}
	return a
}

// holding is how many workloads hold what is in force. Where not all did when it took force, they are
// asked again.
func (c *cluster) holding(ctx context.Context) int {
	c.forced.mu.Lock()
	settled := c.forced.settled
	c.forced.mu.Unlock()
	if settled {
		return len(c.d.local())
	}
	return c.d.settle(ctx, "cluster asks")
}

var askEncoder, askDecoder = func() (cbor.EncMode, cbor.DecMode) {
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	dec, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxNestedLevels: 6, MaxArrayElements: 131_072, MaxMapPairs: 131_072,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return enc, dec
}()
