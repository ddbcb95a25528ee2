package daemon

import (
	"context"
	"crypto/ed25519"
	"fmt"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/gossip"
)

var errAlone = api.Errorf(api.NotFound, "this node is in no cluster; set cluster in its configuration")

// ClusterForget removes a node for good, or lets it come back.
func (d *Daemon) ClusterForget(_ context.Context, r api.ClusterForget) (api.ClusterForget, error) {
	c := d.cluster
	if c == nil {
		return r, errAlone
	}
	var value []byte
	if r.Back {
		if _, gone := c.State.Get(gossip.ClassForget, r.Node); !gone {
			return r, api.Errorf(api.NotFound, "node %q is not forgotten", r.Node)
		}
	} else {
		key, err := c.forgettable(r.Node)
		if err != nil {
			return r, err
		}
		value = key
	}
	rec, err := c.State.Draft(gossip.ClassForget, r.Node, value)
	if err == nil {
		err = d.store.Commit(Change{Said: []gossip.Record{rec}})
	}
	if err != nil {
		return r, api.Errorf(api.Internal, "%v", err)
	}
	c.say([]gossip.Record{rec})
	c.forget(rec)
	return r, nil
}

// forgettable gives the key by which a node is known. Errors: there is none, or the node is alive.
func (c *cluster) forgettable(node string) (ed25519.PublicKey, error) {
	if node == c.d.cfg.Node {
		return nil, api.Errorf(api.BadRequest, "this is node %s itself; ask another one", node)
	}
	for _, m := range c.Members() {
		if m.Node == node && m.Status == gossip.Alive {
			return nil, api.Errorf(api.Conflict, "node %s is alive; stop its bulkheadd first. If it is not to be trusted, replace the cluster's keys (bulkhead cluster keys)", node)
		}
	}
	key := c.State.KeyOf(node)
	if key == nil {
		return nil, api.Errorf(api.NotFound, "node %q: not known here", node)
	}
	return key, nil
}

// forget drops what is known of a node that a register says is gone.
func (c *cluster) forget(rec gossip.Record) {
	if rec.Value == nil || !c.State.KeyOf(rec.Key).Equal(ed25519.PublicKey(rec.Value)) {
		return
	}
	if rec.Key == c.d.cfg.Node {
		c.d.warn("cluster forgotten", "the cluster has forgotten this node: what it tells is not taken; remove "+c.d.cfg.StateDir+"/node.key and start again to join as a new one")
		return
	}
	for _, m := range c.Members() {
		if m.Node == rec.Key && m.Status == gossip.Alive { // an honest node does not forget one that lives
			c.d.clusterAlarm(gossip.Alarm{Node: rec.Node, Kind: gossip.AlarmRefused, What: fmt.Sprintf("it says that node %q is gone for good, which is alive", rec.Key)})
			return
		}
	}
	c.d.log.Info("node forgotten", "node", rec.Key, "by", rec.Node)
	c.Forget(rec.Key)
	c.take()
}
