package daemon

import (
	"context"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
)

// prepare makes the workload of a record known, without its routine.
func (d *Daemon) prepare(record StoredWorkload) *workload {
	w := &workload{
		d: d, id: record.ID, cookie: record.Cookie, record: record,
		log:   d.log.With("workload", record.Namespace+"/"+record.Name),
		kicks: make(chan struct{}, 1),
		asks:  make(chan func(*firewall.Namespace)),
		done:  make(chan struct{}),
		names: names{Names: flow.NewNames(flow.NameLimits{})},
	}
	w.ctx, w.end = context.WithCancelCause(d.life)
	d.mu.Lock()
	d.workloads[w.id] = w
	d.mu.Unlock()
	return w
}

// launch starts the workload's routine, which ends with the daemon's life or w.end.
func (d *Daemon) launch(w *workload) {
	d.routines.Add(1)
	go func() {
		defer d.routines.Done()
		w.routine(w.ctx)
	}()
}

// announce tells everybody of a workload as it is now: the index who it is, the guards' reader where
// it is, the baseline whether it learns.
func (d *Daemon) announce(w *workload) {
	r := w.stored()
	d.mu.Lock()
	_, listed := d.inventory.pods[inventoryKey(r.Namespace, r.Name)]
	for ifindex, other := range d.byHost {
		if other == w {
			delete(d.byHost, ifindex)
		}
	}
	for _, ifc := range r.Interfaces {
		if ifc.HostIndex != 0 {
			d.byHost[ifc.HostIndex] = w
		}
	}
	d.mu.Unlock()
	d.index.Upsert(w.identity(listed))
	d.cluster.publish(w.id)
	d.refreshResolvers()
	if me := d.index.View().Workload(w.id); me != nil {
		d.lockBaseline(d.modes.Load(), me.Service)
	}
}

// byCookieLocked finds the workload of a namespace.
func (d *Daemon) byCookieLocked(cookie uint64) *workload {
	for _, w := range d.workloads {
		if w.cookie == cookie {
			return w
		}
	}
	return nil
}

// refreshResolvers tells the index of all resolvers: the configuration's and the workloads'.
func (d *Daemon) refreshResolvers() {
	all := slices.Clone(d.cfg.Resolvers)
	for _, w := range d.local() {
		all = append(all, w.stored().Resolvers...)
	}
	d.index.SetResolvers(all)
}

// drop ends a workload and forgets it. With handOver the rules stay for who takes the namespace
// next. The caller holds d.attaching.
func (d *Daemon) drop(w *workload, cause string, handOver bool) {
	why := errRemoved
	if handOver {
		why = errLeft
	}
	w.end(why)
	<-w.done
	d.forget(w, cause)
}

// forget takes a workload whose routine has ended out of everything.
func (d *Daemon) forget(w *workload, cause string) {
	d.mu.Lock()
	if d.workloads[w.id] == w {
		delete(d.workloads, w.id)
	}
	for ifindex, other := range d.byHost {
		if other == w {
			delete(d.byHost, ifindex)
		}
	}
	d.mu.Unlock()
	d.index.Withdraw(w.id, identity.SourceCNI)
	d.cluster.publish(w.id)
	d.refreshResolvers()
	if err := d.store.DeleteWorkloads(w.id); err != nil {
		// It stays in the store, and the next daemon finds its namespace gone.
		d.log.Error("workload not forgotten", "workload", w.String(), "err", err)
	}
	d.warn("workload "+w.id, "")
	d.warn("interfaces "+w.id, "")
	d.warn("sets "+w.id, "")
	d.warn("answers "+w.id, "")
	d.warn("names "+w.id, "")
	if err := d.refreshNode(); err != nil {
		d.log.Warn("node addresses not read", "err", err)
	}
	d.log.Info("workload ended", "workload", w.String(), "reason", cause)
	d.kickAll("workload ended")
}

// withdraw is what a workload's own routine asks for when its namespace went away under it. The
// routine ends by itself; somebody else must wait for that.
func (d *Daemon) withdraw(w *workload, cause string) {
	d.routines.Add(1)
	go func() {
		defer d.routines.Done()
		<-w.done
		d.attaching.Lock()
		defer d.attaching.Unlock()
		d.mu.Lock()
		present := d.workloads[w.id] == w
		d.mu.Unlock()
		if !present {
			return // a DEL, or an ADD of the same id, was faster
		}
		d.forget(w, cause)
		select {
		case d.sweeps <- struct{}{}:
		default:
		}
	}()
}

// start makes a new workload and its routine. The caller holds d.attaching and then waits with sync.
func (d *Daemon) start(record StoredWorkload) *workload {
	w := d.prepare(record)
	d.announce(w)
	d.launch(w)
	if err := d.refreshNode(); err != nil {
		d.log.Warn("node addresses not read", "err", err)
	}
	return w
}

// routineSweep removes leftovers until ctx ends.
func (d *Daemon) routineSweep(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			d.adoptPending(ctx)
		case <-d.sweeps:
			select { // the kernel takes a namespace down in its own time
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
		d.sweepGuards()
		d.sweepHolder(ctx)
	}
}

// sweepGuards removes guards of ours in the node's namespace whose veth is gone. A guard whose veth
// is still there stays, although we know no workload behind it: its namespace may live, and the
// rules in there rely on the guard.
func (d *Daemon) sweepGuards() {
	links, err := netlink.LinkList()
	if err != nil {
		d.log.Warn("leftover guards not removed", "err", err)
		return
	}
	keep := map[string]bool{}
	for _, l := range links {
		keep[l.Attrs().Name] = true
	}
	for _, w := range d.local() {
		for _, ifc := range w.stored().Interfaces {
			if ifc.Host != "" {
				keep[ifc.Host] = true
			}
		}
	}
	removed, err := firewall.SweepGuards(keep)
	if err != nil {
		d.log.Warn("leftover guards not removed", "err", err)
	}
	if len(removed) > 0 {
		d.log.Info("leftover guards removed", "count", len(removed))
	}
}
