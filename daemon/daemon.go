package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/api/server"
	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/kube"
	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/runtimes"
)

const (
	// alertsKept is how many alerts the API remembers.
	alertsKept = 4096
	// settleWait bounds how long a change of policies or modes waits until all workloads hold it.
	settleWait = 30 * time.Second
	// stopWait bounds a clean stop.
	stopWait = 10 * time.Second
)

// Daemon is bulkheadd. What it knows lies in four places: the store (what must survive), the index
// (who is who), the graph and the baseline (what was seen), and the rulebook and modes (what should
// be). What the kernel holds is each workload's own.
type Daemon struct {
	cfg     Config
	log     *slog.Logger
	now     func() time.Time
	started time.Time

	store    *Store
	server   *server.Server
	index    *identity.Index
	graph    *flow.Graph
	baseline *flow.Baseline
	alerts   *alert.Dispatcher
	ring     *alert.Ring
	flows    feed[api.Flow]
	runtimes *runtimes.Sources
	counters counters
	traces   traces
	holding  holding
	watcher  *firewall.Watcher // of the workloads' namespaces
	culprits culprits
	logs     *firewall.Readers // the workloads' flow logs
	signing  signing
	cluster  *cluster // nil: this node is alone; set before anything runs

	// change is held through a change of policies, modes or inventory, from looking at what is there
	// to the new state being in force; rules and modes are read without it.
	change          sync.Mutex
	policyFolder    folder
	inventoryFolder folder
	policyFiles     lastGood[[]policy.Policy]
	inventoryFiles  lastGood[*kube.Inventory]
	shadows         shadows
	hits            hits
	rules           atomic.Pointer[rulebook]
	modes           atomic.Pointer[modes]
	affected        affected
	generation      atomic.Uint64                 // of rules and modes
	pending         atomic.Pointer[StoredPending] // the generation that waits for confirmation, or nil
	undone          *plan                         // undoes pending, in force and not stored yet
	newest          atomic.Int64                  // when the newest generation took force, Unix nanoseconds: no clock is right that stands before it
	looked          atomic.Int64                  // when rules that end were last looked at, likewise

	// attaching is held while workloads come and go.
	attaching sync.Mutex

	// mu guards what follows; nothing is called under it that takes another lock of ours.
	mu         sync.Mutex
	workloads  map[string]*workload // by container id
	inventory  inventory
	nodeAddrs  []netip.Addr
	byHost     map[int]*workload   // by ifindex of the host end of a veth
	guards     *firewall.Reader    // of the guards' log
	complaints map[string][]string // by what they are about: errors that status shows
	warnings   map[string]string   // likewise: protection that is reduced

	// routines counts the goroutines of workloads; they end with life.
	routines sync.WaitGroup
	life     context.Context
	dirty    chan struct{} // size 1: something was learned
	sweeps   chan struct{} // size 1: a namespace went away
	confirms chan struct{} // size 1: pending is another
}

// New makes a daemon. It touches nothing before Run.
func New(cfg Config, log *slog.Logger) *Daemon {
	d := &Daemon{
		cfg: cfg, log: log, now: time.Now,
		index:      identity.NewIndex(cfg.Node),
		graph:      flow.NewGraph(flow.Limits{}),
		baseline:   flow.NewBaseline(flow.Limits{}),
		ring:       alert.NewRing(alertsKept),
		runtimes:   runtimes.New(runtimes.Config{Containerd: cfg.Containerd, Podman: cfg.Podman}),
		workloads:  map[string]*workload{},
		byHost:     map[int]*workload{},
		complaints: map[string][]string{},
		warnings:   map[string]string{},
		dirty:      make(chan struct{}, 1),
		sweeps:     make(chan struct{}, 1),
		confirms:   make(chan struct{}, 1),
	}
	d.policyFolder = folder{cfg.PolicyDir, log}
	d.inventoryFolder = folder{cfg.InventoryDir, log}
	d.index.SetNetworks(cfg.Networks)
	d.index.SetPodBlocks(cfg.PodBlocks)
	d.index.SetResolvers(cfg.Resolvers)
	d.index.SetBuiltIns(cfg.AllowNode, cfg.AllowDNS)
	d.modes.Store(&modes{standard: cfg.DefaultMode})
	d.shadows.seen = map[slot]*evidence{}
	d.hits.restore(nil)
	d.signing = newSigning(cfg.Cluster, d.tellUnsigned)
	return d
}

// Run takes the socket and the store, brings everything back that was there before, tells the init
// system, and works until ctx ends. All rules stay in force when it returns.
//
// Errors: another daemon holds the socket or the store, or state that cannot be read; the kernel is
// then as it was.
func (d *Daemon) Run(ctx context.Context) (err error) {
	d.started = d.now()
	gid, err := groupID(d.cfg.Group)
	if err != nil {
		return err
	}
	// Socket and store first: a second daemon must end before it touches the kernel.
	if d.server, err = server.Open(server.Config{Socket: d.cfg.Socket, GID: gid, Log: d.log}, d); err != nil {
		return err
	}
	defer d.server.Close()
	if d.store, err = OpenStore(d.cfg.StateDir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.store.Close()) }()
	if d.logs, err = firewall.NewReaders(); err != nil {
		return err
	}
	defer d.logs.Close()
	if err := d.openWatcher(); err != nil {
		return err
	}
	defer d.watcher.Close()
	sinks, closeSinks, err := d.openSinks()
	if err != nil {
		return err
	}
	defer closeSinks()
	d.alerts = alert.NewDispatcher(&alert.Judge{Node: d.cfg.Node}, &alert.Folder{}, func(err error) {
		d.log.Error("alert not written", "err", err)
	}, sinks...)
	if err := d.joinCluster(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	defer d.leaveCluster()
	if err := d.restoreState(); err != nil {
		return err
	}
	return d.work(ctx)
}

// work runs the routines. They have two lives: workloads, alerts and the store's writer end after
// the server, so that what the last calls did is told and stored.
func (d *Daemon) work(ctx context.Context) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	d.life = life
	var late sync.WaitGroup
	late.Add(4)
	go func() { defer late.Done(); d.routineWatcher(life) }()
	go func() { defer late.Done(); d.routineLogs(life) }()
	go func() { defer late.Done(); d.alerts.Run(life) }()
	go func() { defer late.Done(); d.routineLearned(life) }()

	group, gctx := errgroup.WithContext(ctx)
	d.openHolder()
	d.cluster.catchUp(gctx)
	err := d.adopt(gctx)
	if err == nil {
		d.cluster.openBook()
		group.Go(func() error { return d.routineCluster(gctx) })
		group.Go(func() error { return d.routineRegisters(gctx) })
		group.Go(func() error { return d.routineEdges(gctx) })
		group.Go(func() error { return d.routineSnapshot(gctx) })
		group.Go(func() error { return d.routineNode(gctx) })
		group.Go(func() error { return d.routineGuards(gctx) })
		group.Go(func() error { return d.routineSweep(gctx) })
		group.Go(func() error { return d.routineConfirm(gctx) })
		group.Go(func() error { return d.routineShadows(gctx) })
		group.Go(func() error { return d.routineExpiry(gctx) })
		group.Go(func() error { return d.policyFolder.watch(gctx, d.reloadPolicies) })
		group.Go(func() error { return d.inventoryFolder.watch(gctx, d.reloadInventory) })
		group.Go(func() error { return d.server.Run(gctx) })
		d.log.Info("ready", "node", d.cfg.Node, "count", len(d.local()), "took", d.now().Sub(d.started))
		d.notify(systemd.SdNotifyReady)
		err = group.Wait()
	}
	d.notify(systemd.SdNotifyStopping)
	d.leaveAll()
	d.leaveCluster()
	d.storeEvidence()
	end()
	late.Wait()
	d.log.Info("stopped", "node", d.cfg.Node, "err", err)
	return err
}

// leaveAll ends the workloads' routines; their rules stay.
func (d *Daemon) leaveAll() {
	for _, w := range d.local() {
		w.end(errStopping)
	}
	done := make(chan struct{})
	go func() { d.routines.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(stopWait):
		d.log.Error("workloads do not end", "took", stopWait)
	}
}

func (d *Daemon) notify(state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		d.log.Warn("init system not told", "err", err)
	}
}

func (d *Daemon) openSinks() ([]alert.Sink, func(), error) {
	sinks := []alert.Sink{d.ring}
	if d.cfg.AlertLog == "" {
		return sinks, func() {}, nil
	}
	if err := os.MkdirAll(filepath.Dir(d.cfg.AlertLog), 0o750); err != nil {
		return nil, nil, err
	}
	file, err := alert.OpenFile(d.cfg.AlertLog, d.cfg.AlertLogSize<<20, 0)
	if err != nil {
		return nil, nil, err
	}
	return append(sinks, file), func() { _ = file.Close() }, nil
}

// groupID reads a group's name or number; "" is 0: root only.
func groupID(group string) (int, error) {
	if group == "" {
		return 0, nil
	}
	if id, err := strconv.Atoi(group); err == nil && id > 0 {
		return id, nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, fmt.Errorf("group %q: %w", group, err)
	}
	return strconv.Atoi(g.Gid)
}

// local lists the workloads of this node, by id.
func (d *Daemon) local() []*workload {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]*workload, 0, len(d.workloads))
	for _, w := range d.workloads {
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b *workload) int { return cmp.Compare(a.id, b.id) })
	return out
}

// find gives a workload of this node by id or namespace/name.
func (d *Daemon) find(name string) *workload {
	for _, w := range d.local() {
		if w.id == name || w.String() == name {
			return w
		}
	}
	return nil
}

// kickAll asks every workload to reconcile.
func (d *Daemon) kickAll(cause string) {
	for _, w := range d.local() {
		w.kick(cause)
	}
}

// settle asks every workload to reconcile and waits until they did, or ctx ends. It returns how
// many hold what is wanted now.
func (d *Daemon) settle(ctx context.Context, cause string) int {
	all := d.local()
	answers := make([]<-chan error, len(all))
	for i, w := range all {
		answers[i] = w.want(cause)
	}
	held := 0
	for i, w := range all {
		select {
		case err := <-answers[i]:
			if err == nil {
				held++
			}
		case <-w.done:
		case <-ctx.Done():
			return held
		}
	}
	return held
}

// complain replaces what status says is refused of one source, and logs what is new.
func (d *Daemon) complain(about string, errs []error) {
	texts := make([]string, 0, len(errs))
	for _, err := range errs {
		texts = append(texts, err.Error())
	}
	d.mu.Lock()
	before := d.complaints[about]
	d.complaints[about] = texts
	d.mu.Unlock()
	for _, text := range texts {
		if !slices.Contains(before, text) {
			d.log.Error("file refused", "dir", about, "err", text)
		}
	}
}

// warn sets or, with an empty text, clears a warning of status, and logs it when it is new.
func (d *Daemon) warn(about, text string) {
	d.mu.Lock()
	before := d.warnings[about]
	if text == "" {
		delete(d.warnings, about)
	} else {
		d.warnings[about] = text
	}
	d.mu.Unlock()
	if text != "" && text != before {
		d.log.Warn("protection reduced", "reason", text)
	}
}
