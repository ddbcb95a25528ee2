package daemon

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/bulkhead-firewall/bulkhead/gossip"
)

const (
	// snapshotDelay is how long changes of the cluster's state gather before they are written.
	snapshotDelay = 300 * time.Millisecond
	// snapshotShare bounds how much of the time is spent writing: after a write there is a rest of so
	// many times its length. A large cluster's state has tens of MiB.
	snapshotShare = 20
)

// touch notes that the state is not as it is stored.
func (c *cluster) touch() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// routineSnapshot stores the cluster's state after it changed, until ctx ends.
func (d *Daemon) routineSnapshot(ctx context.Context) error {
	c := d.cluster
	if c == nil {
		return nil
	}
	rest := snapshotDelay
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.changed:
		}
		select {
		case <-ctx.Done():
			return nil // leaveCluster writes it
		case <-time.After(rest):
		}
		begin := time.Now()
		if !c.storeSnapshot() {
			c.touch()
		}
		rest = max(snapshotDelay, snapshotShare*time.Since(begin))
	}
}

// saidAndTold lists the stored writes of this node that the state has, or has something later in the
// place of.
func (c *cluster) saidAndTold() ([]gossip.Record, error) {
	said, err := c.d.store.Said()
	return slices.DeleteFunc(said, func(rec gossip.Record) bool {
		now, known := c.State.Look(rec.Class, rec.Key)
		return !known || now.Time < rec.Time
	}), err
}

// storeSnapshot writes the state as it is now; false: it could not.
func (c *cluster) storeSnapshot() bool {
	covered, err := c.saidAndTold()
	if err != nil {
		c.d.log.Error("writes to the cluster not read back", "err", err) // they stay
	}
	data, err := c.State.Snapshot()
	if err == nil {
		err = c.d.store.PutSnapshot(data, covered)
	}
	text := ""
	if err != nil {
		text = fmt.Sprintf("what is known of other nodes is not stored: %v; a restart needs them to tell it again", err)
	}
	c.d.warn("cluster state", text)
	return err == nil
}
