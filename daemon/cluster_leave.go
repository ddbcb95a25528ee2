package daemon

import (
	"context"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// leaveWait bounds how long a goodbye may take.
const leaveWait = 3 * time.Second

// ClusterLeave has this node say goodbye when the daemon is stopped, or not.
func (d *Daemon) ClusterLeave(_ context.Context, r api.ClusterLeave) (api.ClusterLeave, error) {
	if d.cluster == nil {
		return r, errAlone
	}
	d.cluster.leaving.Store(!r.Stay)
	text := ""
	if !r.Stay {
		text = "this node says goodbye to the cluster when bulkheadd is stopped (bulkhead cluster leave)"
	}
	d.warn("cluster leave", text)
	return api.ClusterLeave{Node: d.cfg.Node, Stay: r.Stay}, nil
}

// leaveCluster ends the membership: without a word, since this node's workloads run on and the others
// are to know them until it is back, or with a goodbye where somebody asked for it.
func (d *Daemon) leaveCluster() {
	c := d.cluster
	if c == nil {
		return
	}
	c.storeSnapshot()
	c.cancel()
	c.tasks.Wait()
	end := c.Close
	if c.leaving.Load() {
		end = func() error {
			ctx, cancel := context.WithTimeout(context.Background(), leaveWait)
			defer cancel()
			return c.Leave(ctx)
		}
	}
	if err := end(); err != nil {
		d.log.Warn("cluster not left", "err", err)
	}
}
