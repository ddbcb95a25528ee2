package daemon

import (
	"fmt"
	"maps"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/gossip"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// refuse notes that a register cannot be taken here; nil: it can.
func (c *cluster) refuse(rec gossip.Record, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		delete(c.refused, rec.ID())
		return
	}
	c.refused[rec.ID()] = refusedRecord{rec.Node, rec.Time, err}
}

// refusedRecord is a register that this node cannot take.
type refusedRecord struct {
	node string
	time gossip.Timestamp
	err  error
}

// tellRefused says in status, and once in an alert, what of the cluster is not in force here.
func (c *cluster) tellRefused() {
	c.mu.Lock()
	var errs []error
	var fresh []refusedRecord
	for _, id := range slices.SortedFunc(maps.Keys(c.refused), compareIDs) {
		r := c.refused[id]
		errs = append(errs, fmt.Errorf("cluster: %s of node %s: %w", id.Class, r.node, r.err))
		if c.alerted[id] != r.time {
			c.alerted[id] = r.time
			fresh = append(fresh, r)
		}
	}
	maps.DeleteFunc(c.alerted, func(id gossip.ID, _ gossip.Timestamp) bool { _, still := c.refused[id]; return !still })
	c.mu.Unlock()
	c.d.complain(complaintsCluster, errs)
	for _, r := range fresh {
		c.d.alerts.Send(c.refusal(r))
	}
}

// complaintsCluster is what status calls registers that are refused.
const complaintsCluster = "cluster"

// refusal tells people of a register that is not in force here.
func (c *cluster) refusal(r refusedRecord) alert.Alert {
	now := c.d.now()
	return alert.Alert{
		Kind: alert.Cluster, Severity: alert.Medium, Verdict: policy.Alert, Time: now, First: now, Last: now, Count: 1, Node: c.d.cfg.Node,
		Client: alert.Party{Service: "node"},
		Reason: fmt.Sprintf("what node %s wrote for all is not in force here: %v", r.node, r.err),
		Advice: "run the same version of bulkheadd on all nodes, and see bulkhead cluster status",
	}
}
