package gossip

import (
	"fmt"
	"sync"
	"time"
)

// Timestamp orders writes to registers: a hybrid logical clock (Kulkarni et al., "Logical Physical
// Clocks", 2014). The upper 48 bits are milliseconds since 1970, the lower 16 count writes within one.
// A write that was made with knowledge of another has the later timestamp, however wrong the clocks of
// their nodes are.
type Timestamp uint64

// Time is when it was, by the clock of the node that was ahead of the others.
func (t Timestamp) Time() time.Time { return time.UnixMilli(int64(t >> 16)) }

func (t Timestamp) String() string {
	return fmt.Sprintf("%s+%d", t.Time().UTC().Format(time.RFC3339), t&0xffff)
}

func timestampAt(t time.Time) Timestamp { return Timestamp(max(t.UnixMilli(), 0)) << 16 }

// maxAhead is how far ahead of this node's clock a timestamp may be. Hours of skew are met in the
// field; a year is an attempt to win for ever.
const maxAhead = 30 * 24 * time.Hour

// clock gives timestamps that only grow.
type clock struct {
	now  func() time.Time
	mu   sync.Mutex
	last Timestamp
}

// next is later than everything seen before.
func (c *clock) next() Timestamp {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last+1, timestampAt(c.now()))
	return c.last
}

// believe says whether a timestamp can be true. Errors: it lies further in the future than skew explains.
func (c *clock) believe(t Timestamp) error {
	if ahead := t.Time().Sub(c.now()); ahead > maxAhead {
		return fmt.Errorf("timestamp %s is %s ahead of this node's clock; set the clocks", t, ahead.Round(time.Hour))
	}
	return nil
}

// see takes note of another node's timestamp: what is written here from now on is later.
func (c *clock) see(t Timestamp) {
	c.mu.Lock()
	c.last = max(c.last, t)
	c.mu.Unlock()
}
