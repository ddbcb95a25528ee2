package gossip

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// Config of a Cluster.
type Config struct {
	Node      string             // this node's name, the only one of it in the cluster
	Label     string             // the cluster's name: nodes of another one are not heard
	Key       ed25519.PrivateKey // this node's own: see [StateConfig]
	Keyring   [][]byte           // AES keys of 16, 24 or 32 bytes; the first encrypts, all decrypt; none: in the clear
	Bind      netip.AddrPort     // UDP and TCP
	Advertise netip.AddrPort     // where others reach it; invalid: found out, see advertised
	Seeds     []string           // whom to join: "host", "host:port" (every address of a name), "file:PATH" with one a line
	Version   string             // of the program
	Stored    []byte             // what State.Snapshot gave before the restart; nil: nothing
	Log       *slog.Logger
	// Handlers answer what other nodes ask with [Cluster.Ask], beside this package's own.
	Handlers map[string]Handler
	// KeysChanged stores the keyring, the encrypting key first, after somebody changed it; nil: not.
	KeysChanged func(keys [][]byte) error
	Blocks      []netip.Prefix // this node's own pod ranges, for [Claims]; none: not declared
	// Check says which writes to registers are taken, and in which rank: see [StateConfig].
	Check func(Record) (rank uint64, err error)
	// Trust is a short hash of what Check goes by, shown to the others: see [Member].
	Trust []byte
	// Alarm is told of what no honest member does, repeats once a minute. It must not block. nil: logged only.
	Alarm     func(Alarm)
	Now       func() time.Time     // nil: time.Now
	Transport memberlist.Transport // nil: UDP and TCP on Bind

	protocol uint8                 // 0: protocolMax
	deadTold time.Duration         // for how long memberlist tells the dead; 0: its default, 30 s
	since    func(kind byte) uint8 // nil: the table
}

// deadForgotten is how long a dead node's books and key are kept for its return.
const deadForgotten = 72 * time.Hour

// Cluster is this node's membership.
type Cluster struct {
	State *State

	config Config
	log    *slog.Logger
	list   *memberlist.Memberlist
	queue  *Queue

	ring *memberlist.Keyring // nil: in the clear
	keys sync.Mutex          // one order at a time

	inbox  chan frame
	outbox chan outgoing
	counts Counts
	alarms alarms
	about  meta
	mu     sync.Mutex
	nodes  map[string]*known
	living map[uint8]int // other nodes that are alive, by the highest protocol version that they read

	handlers  map[string]Handler
	questions atomic.Uint64
	waiting   map[uint64]chan *answer // by question; bounded by who asks
	answering chan struct{}

	leaving atomic.Bool
	common  atomic.Int32  // the version that all living members read
	kick    chan struct{} // somebody died
	alive   atomic.Int64  // members, this node too; read under memberlist's locks

	cancel context.CancelFunc
	tasks  sync.WaitGroup
}

// Counts of what went wrong on the way.
type Counts struct {
	Refused  atomic.Uint64 // messages that were not as they must be
	Overflow atomic.Uint64 // messages that came faster than they were taken
	Unsent   atomic.Uint64 // replies that could not be delivered
}

type outgoing struct {
	to      string
	message []byte
}

// Bounds of what waits. A lost message is found by the next exchange.
const (
	maxInbox  = 4096
	maxOutbox = 1024
	senders   = 4
)

// Join starts this node's membership: at once on its own, then with whom it finds, for as long as ctx
// lives. Errors: the configuration, an address that cannot be bound, stored state that is malformed
// (the membership is then not started).
func Join(ctx context.Context, c Config) (*Cluster, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.protocol == 0 {
		c.protocol = protocolMax
	}
	g := &Cluster{config: c, log: c.Log, inbox: make(chan frame, maxInbox), outbox: make(chan outgoing, maxOutbox), nodes: map[string]*known{}, living: map[uint8]int{},
		waiting: map[uint64]chan *answer{}, answering: make(chan struct{}, maxAnswering),
		kick: make(chan struct{}, 1), alarms: alarms{told: map[Alarm]*repeats{}}}
	g.about = meta{Key: c.Key.Public().(ed25519.PublicKey), Version: c.Version, Trust: c.Trust}
	g.common.Store(int32(c.protocol))
	g.handlers = map[string]Handler{"keys": g.onKeys}
	maps.Copy(g.handlers, c.Handlers)
	g.queue = NewQueue(func() int { return int(g.alive.Load()) })
	g.State = NewState(StateConfig{Node: c.Node, Key: c.Key, Now: c.Now, Broadcast: g.broadcast, Check: c.Check})
	if c.Stored != nil {
		if err := g.State.Restore(c.Stored); errors.Is(err, errMalformed) {
			return nil, err
		} else if err != nil {
			c.Log.Warn("part of the stored cluster state is not usable and will be fetched again", "err", err)
		}
	}
	if err := g.writeBlocks(); err != nil {
		return nil, err
	}
	g.remember()
	conf, err := g.memberlistConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("gossip: join: %w", err)
	}
	list, err := memberlist.Create(conf)
	if err != nil {
		return nil, fmt.Errorf("gossip: join: listen on %s: %w", c.Bind, err)
	}
	g.list = list
	ctx, g.cancel = context.WithCancel(ctx)
	for range senders {
		g.run(ctx, g.send)
	}
	g.run(ctx, g.take)
	g.run(ctx, g.exchange)
	g.run(ctx, g.seek)
	return g, nil
}

// run starts a task that Close waits for.
func (g *Cluster) run(ctx context.Context, task func(context.Context)) {
	g.tasks.Add(1)
	go func() {
		defer g.tasks.Done()
		task(ctx)
	}()
}

func (g *Cluster) memberlistConfig(ctx context.Context) (*memberlist.Config, error) {
	c := memberlist.DefaultLANConfig()
	c.Name, c.Label = g.config.Node, g.config.Label
	c.BindAddr, c.BindPort = g.config.Bind.Addr().String(), int(g.config.Bind.Port())
	c.AdvertisePort = c.BindPort
	if g.config.Transport == nil {
		at, err := advertised(ctx, &g.config)
		if err != nil {
			return nil, err
		}
		if !g.config.Advertise.IsValid() && g.config.Bind.Addr().IsUnspecified() {
			g.log.Info("others reach this node at", "address", at)
		}
		c.AdvertiseAddr, c.AdvertisePort = at.Addr().String(), int(at.Port())
	}
	c.GossipInterval, c.GossipNodes, c.RetransmitMult = Interval, Fanout, Full
	// memberlist wants every node to read the version that another one speaks: the lowest is said to be
	// spoken, and what is really spoken goes by the highest that each reads.
	c.DelegateProtocolMin, c.DelegateProtocolMax, c.DelegateProtocolVersion = protocolMin, g.config.protocol, protocolMin
	c.DeadNodeReclaimTime = 30 * time.Second // a node may come back at another address; its key must be the same
	c.Delegate, c.Events, c.Alive, c.Conflict = g, g, g, g
	c.Transport = g.config.Transport
	if g.config.deadTold > 0 {
		c.GossipToTheDeadTime = g.config.deadTold
	}
	c.Logger = slog.NewLogLogger(g.log.Handler(), slog.LevelDebug)
	if len(g.config.Keyring) > 0 {
		ring, err := memberlist.NewKeyring(g.config.Keyring, g.config.Keyring[0])
		if err != nil {
			return nil, fmt.Errorf("key: %w; want 16, 24 or 32 bytes", err)
		}
		c.Keyring, g.ring = ring, ring
	}
	return c, nil
}

// Leave tells the others that this node goes, and ends. Its endpoints are gone for them at once.
func (g *Cluster) Leave(ctx context.Context) error {
	wait := time.Second
	if end, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(end))
	}
	g.leaving.Store(true)
	g.State.clear(Endpoints)
	err := errors.Join(g.list.UpdateNode(wait), g.list.Leave(wait))
	return errors.Join(err, g.Close())
}

// Close ends without a word: the others find it dead, and keep its endpoints for a time.
func (g *Cluster) Close() error {
	g.cancel()
	err := g.list.Shutdown()
	g.tasks.Wait()
	return err
}

// broadcast queues a message for all nodes.
func (g *Cluster) broadcast(name string, full, brief []byte) {
	if !g.reads(uint8(g.common.Load()), full) {
		return // an older node would refuse it; those that read it find out when they compare
	}
	if brief != nil {
		brief = g.frame(brief)
	}
	g.queue.Add(name, g.frame(full), brief)
}

// take handles what came in, one after the other.
func (g *Cluster) take(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-g.inbox:
			g.heard(f.from)
			if err := g.handle(ctx, f); err != nil {
				g.refuse(f.from, err)
			}
		}
	}
}

func (g *Cluster) handle(ctx context.Context, f frame) error {
	switch f.kind() {
	case msgQuestion:
		return g.onQuestion(ctx, f)
	case msgAnswer:
		return g.onAnswer(f)
	}
	replies, err := g.State.Receive(f.from, f.message)
	for _, r := range replies {
		g.reply(f.from, r)
	}
	return err
}

// send delivers replies, over TCP.
func (g *Cluster) send(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-g.outbox:
			node := g.member(o.to)
			if node == nil || !g.reads(node.DMax, o.message) {
				g.counts.Unsent.Add(1)
				continue
			}
			if err := g.list.SendReliable(node, g.frame(o.message)); err != nil {
				g.counts.Unsent.Add(1)
				g.log.Debug("a reply was not delivered", "node", o.to, "err", err)
			}
		}
	}
}

// exchange asks a random member now and then whether it holds the same.
func (g *Cluster) exchange(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(Exchange/2 + rand.N(Exchange)):
		}
		g.reap()
		if node := g.anyone(); node != nil {
			if err := g.list.SendBestEffort(node, g.frame(g.State.Summary())); err != nil {
				g.log.Debug("a summary was not sent", "node", node.Name, "err", err)
			}
		}
	}
}
