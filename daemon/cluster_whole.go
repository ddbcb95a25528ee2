package daemon

import (
	"fmt"
	"time"

	"github.com/bulkhead-firewall/bulkhead/gossip"
)

// One call may write many registers, and they reach another node one by one. A mode that takes force
// before the policies that came with it would cut connections that the whole change allows. So a node
// also writes, in a register of its own, what belonged to its latest call; the others hold the parts
// back until they have all of them, for a bounded time.

const (
	// classChange is the class of these registers: node → list of writeTime.
	classChange = "change"
	// maxWhole bounds the parts of a change that is kept whole: 10,000 have half a MiB.
	maxWhole = 10_000
	// wholeWait bounds how long parts wait for the others.
	wholeWait = 2 * time.Second
)

// openChange is a change of another node that is not here whole.
type openChange struct {
	parts []writeTime
	since time.Time
}

// bind makes the write that says which writes belong together; false: there is no need for one.
func (c *cluster) bind(list []gossip.Record) (gossip.Record, bool, error) {
	if len(list) < 2 || len(list) > maxWhole {
		return gossip.Record{}, false, nil
	}
	value, err := askEncoder.Marshal(writesOf(list))
	if err != nil {
		return gossip.Record{}, false, err
	}
	rec, err := c.State.Draft(classChange, c.d.cfg.Node, value)
	return rec, err == nil, err
}

// whole parts registers that may take force now from those whose companions are still to come. It is
// called by one routine only.
func (c *cluster) whole(ids []gossip.ID) (now, later []gossip.ID) {
	for _, id := range ids {
		if id.Class == classChange {
			c.openChange(id)
		}
	}
	held := map[gossip.ID]bool{}
	for node, o := range c.parted {
		if c.arrived(o.parts) || time.Since(o.since) > wholeWait {
			delete(c.parted, node)
			continue
		}
		for _, w := range o.parts {
			held[gossip.ID{Class: w.Class, Key: w.Key}] = true
		}
	}
	for _, id := range ids {
		if held[id] {
			later = append(later, id)
		} else {
			now = append(now, id)
		}
	}
	return now, later
}

// openChange takes note of what belongs to a node's latest change.
func (c *cluster) openChange(id gossip.ID) {
	rec, known := c.State.Get(id.Class, id.Key)
	if !known {
		return
	}
	var parts []writeTime
	if err := askDecoder.Unmarshal(rec.Value, &parts); err != nil || len(parts) > maxWhole {
		c.d.clusterAlarm(gossip.Alarm{Node: rec.Node, Kind: gossip.AlarmMalformed, What: fmt.Sprintf("its latest change is not readable: %v", err)})
		return
	}
	c.parted[id.Key] = openChange{parts, time.Now()}
}

// arrived says whether writes are here, or what came after them.
func (c *cluster) arrived(list []writeTime) bool {
	for _, w := range list {
		if rec, known := c.State.Look(w.Class, w.Key); !known || rec.Time < gossip.Timestamp(w.Time) {
			return false
		}
	}
	return true
}
