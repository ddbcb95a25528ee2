package daemon

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/gossip"
)

// cluster is this node's part in a cluster.
//
//	workloads of this node  → its book of endpoints → identities on the others   cluster_endpoints.go
//	the state               → the store, for the next start                      cluster_snapshot.go
type cluster struct {
	*gossip.Cluster
	d   *Daemon
	cfg ClusterConfig

	changed chan struct{} // size 1: the state is not as it is stored
	hears   chan struct{} // size 1: heard is not empty

	mu      sync.Mutex
	open    bool                 // this node's own endpoints are told
	shut    map[string]bool      // nodes whose endpoints are not believed any more: dead for longer than grace
	absent  map[string]time.Time // since when nodes with endpoints are no living members
	heard   map[gossip.ID]struct{}
	refused map[gossip.ID]refusedRecord
	alerted map[gossip.ID]gossip.Timestamp // writes among them that people were told of
	forced  force
	claims  claims

	leaving atomic.Bool // it says goodbye when it is stopped

	spans  convergence
	starts starts
	edges  edges
	parted map[string]openChange // by writer; routineRegisters' own
	taking sync.Mutex            // held while changes of others are told to the index
	life   context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup // questions under way
	ready  chan struct{}  // closed when this node can answer others
}

func newCluster(d *Daemon) *cluster {
	return &cluster{
		d: d, cfg: *d.cfg.Cluster, changed: make(chan struct{}, 1), hears: make(chan struct{}, 1),
		shut: map[string]bool{}, absent: map[string]time.Time{}, heard: map[gossip.ID]struct{}{},
		refused: map[gossip.ID]refusedRecord{}, alerted: map[gossip.ID]gossip.Timestamp{},
		forced: newForce(), claims: newClaims(d.cfg.Node, d.cfg.Cluster.NodePodBlocks), ready: make(chan struct{}),
		parted: map[string]openChange{},
		edges:  edges{told: map[string]toldEdge{}, due: map[string]flow.Edge{}, gone: map[string]bool{}},
	}
}

// followEvery is how often members are looked at: a node that died says nothing.
const followEvery = time.Second

// joinCluster brings the cluster's state back as it was, and starts to look for the others.
func (d *Daemon) joinCluster(ctx context.Context) error {
	if d.cfg.Cluster == nil {
		return nil
	}
	c := newCluster(d)
	c.life, c.cancel = context.WithCancel(ctx)
	conf, err := c.gossipConfig()
	if err != nil {
		return fmt.Errorf("cluster %s: %w", c.cfg.Name, err)
	}
	if conf.Stored, err = d.store.Snapshot(); err != nil {
		d.log.Error("the stored cluster state is not usable; it is fetched from other nodes", "err", err)
	}
	if c.Cluster, err = gossip.Join(ctx, conf); err != nil && conf.Stored != nil {
		// Either what is stored is no state, or the same error comes again.
		stored := err
		conf.Stored = nil
		if c.Cluster, err = gossip.Join(ctx, conf); err == nil {
			d.log.Error("the stored cluster state is not usable; it is fetched from other nodes", "err", stored)
		}
	}
	if err != nil {
		return fmt.Errorf("cluster %s: %w", c.cfg.Name, err)
	}
	if len(conf.Keyring) == 0 {
		d.warn("cluster keys", "the cluster's messages are not encrypted: whoever reaches the port can read them and write policies; set cluster.keyFile")
	}
	if err := c.resay(); err != nil {
		d.log.Error("changes of this node that a crash kept from the cluster", "err", err)
	}
	d.cluster = c
	return nil
}

// catchUp puts in force what was known before the restart, and what came since, before any rule is
// worked out.
func (c *cluster) catchUp(ctx context.Context) {
	if c == nil {
		return
	}
	c.take()
	c.followAll(ctx)
	close(c.ready)
}

// answers is a handler that waits until this node can answer.
func (c *cluster) answers(h gossip.Handler) gossip.Handler {
	return func(ctx context.Context, from string, body []byte) ([]byte, error) {
		select {
		case <-c.ready:
			return h(ctx, from, body)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c *cluster) gossipConfig() (gossip.Config, error) {
	conf := gossip.Config{
		Node: c.d.cfg.Node, Label: c.cfg.Name, Bind: c.cfg.Bind, Advertise: c.cfg.Advertise, Seeds: c.cfg.Seeds, Blocks: c.cfg.NodePodBlocks,
		Version: Version(), Log: c.d.log, Now: c.d.now,
		Handlers: map[string]gossip.Handler{"force": c.answers(c.onForce), "position": c.answers(c.onPosition), "greet": c.answers(c.onGreet)},
		Check:    c.d.signing.checkRecord, Trust: c.d.signing.hash(), Alarm: c.d.clusterAlarm,
	}
	var err error
	if conf.Key, err = nodeKey(c.d.cfg.StateDir); err != nil {
		return conf, err
	}
	if file := c.cfg.KeyFile; file != "" {
		if conf.Keyring, err = readKeyring(file); err != nil {
			return conf, err
		}
		conf.KeysChanged = func(keys [][]byte) error { return writeKeyring(file, keys) }
	}
	return conf, nil
}

// routineCluster follows what other nodes change, until ctx ends.
func (d *Daemon) routineCluster(ctx context.Context) error {
	c := d.cluster
	if c == nil {
		return nil
	}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.State.Changed():
			c.take()
		case <-tick.C:
			c.lookAtMembers()
		}
	}
}

// take puts in force what changed.
func (c *cluster) take() {
	c.taking.Lock()
	defer c.taking.Unlock()
	changes := c.State.TakeChanges()
	if len(changes) == 0 {
		return
	}
	c.touch()
	var endpoints []gossip.Change
	var registers []gossip.ID
	for _, x := range changes {
		switch {
		case x.Owner == "":
			registers = append(registers, gossip.ID{Class: x.Class, Key: x.Key})
		case x.Kind == gossip.Endpoints:
			endpoints = append(endpoints, x)
		}
	}
	c.takeEndpoints(endpoints)
	c.note(registers...)
}
