package daemon

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

const (
	// presenceEvery is how often a workload's namespace is looked for at its path. Our own sockets
	// keep a namespace alive, so nothing else tells us that the runtime let go of it.
	presenceEvery = time.Second
	// sweepEvery is how often what the kernel holds is compared with what it should, beside the
	// events that tell of changes at once; and how often what failed is tried again.
	sweepEvery = 30 * time.Second
	// usageEvery is how often the counters of seen peers are read back: several times in the life of
	// an element (firewall.SeenTimeout), with which its count goes.
	usageEvery = 10 * time.Second
	// retryEvery is how soon after a failed reconcile the next one is tried.
	retryEvery = 2 * time.Second
)

// grip is what a workload's routine holds of its namespace.
type grip struct {
	ns      *firewall.Namespace
	inode   uint64 // of the namespace
	reader  *firewall.Reader
	logTold firewall.ReaderStats // what was told of reader
	meter   *meter
	watch   *firewall.Watch
	heard   suspicion // of watch
	answers *listener // nil: DNS answers are not read

	beyond     bool       // the bound of entries was reached, and told
	redirected bool       // somebody rewrites what comes in
	newcomers  []newcomer // by time
	basis      basis
}

// routine owns the workload's namespace until ctx ends: the cause says whether the rules go.
func (w *workload) routine(ctx context.Context) {
	defer close(w.done)
	g := &grip{heard: suspicion{events: make(chan firewall.Event, tamperQueue)}}
	defer w.release(ctx, g)
	presence, sweep, usage := time.NewTicker(presenceEvery), time.NewTicker(sweepEvery), time.NewTicker(usageEvery)
	defer presence.Stop()
	defer sweep.Stop()
	defer usage.Stop()
	var retry <-chan time.Time
	w.kick("start")
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.kicks:
			retry = w.serve(ctx, g)
		case <-retry:
			retry = w.serve(ctx, g)
		case f := <-w.asks:
			f(g.ns)
		case e := <-g.heard.events:
			w.onEvent(g, e)
		case <-g.heard.due:
			w.judgeEvents(g)
		case <-sweep.C:
			g.basis.doubted = true
			w.kick("sweep")
			if g.ns != nil {
				w.sweep(g)
			}
		case <-usage.C:
			w.readUsage(g)
			w.sweepNames(g)
		case <-presence.C:
			if !w.present(g) {
				w.end(errLeft)
				w.d.withdraw(w, "its namespace is gone")
				return
			}
			w.judgeNewcomers(g)
			w.look(g)
			if g.heard.again {
				w.locate(g)
			}
			w.judgeLog(g)
		}
	}
}

// serve reconciles once for all who asked until now, answers them, and says when to try again.
func (w *workload) serve(ctx context.Context, g *grip) <-chan time.Time {
	w.mu.Lock()
	waiters, cause := w.waiters, w.cause
	w.waiters = nil
	w.mu.Unlock()
	err := w.reconcile(ctx, g, cause)
	w.mu.Lock()
	changed := fmt.Sprint(w.state.err) != fmt.Sprint(err)
	w.state.err = err
	w.mu.Unlock()
	if changed {
		w.report(err)
	}
	for _, answer := range waiters {
		answer <- err // has room for one
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, errBound) { // what is too much stays so until something changes
		return time.After(retryEvery)
	}
	return nil
}

// report tells of a reconcile that failed, and of the next one that does not.
func (w *workload) report(err error) {
	text := ""
	if err != nil {
		text = fmt.Sprintf("%s does not hold what policy says: %v", w, err)
	}
	w.d.warn("workload "+w.id, text)
}

// reconcile brings the namespace to what policies, identities and mode say now. Where that is what
// it holds, nothing is done.
func (w *workload) reconcile(ctx context.Context, g *grip, cause string) error {
	spec, err := w.wanted(g)
	if err != nil {
		return err
	}
	held := w.inForce()
	spec, beyond := w.bound(spec, held)
	w.tellBound(g, beyond)
	if held.valid && sameSpec(held.spec, spec) {
		return beyond
	}
	if err := w.open(ctx, g); err != nil {
		return err
	}
	spec.Redirected = g.redirected // what opening has found
	if err := w.followNames(ctx, g, spec); err != nil {
		return err
	}
	begin := time.Now()
	changes, err := g.ns.Apply(firewall.Compile(spec)) // ends the connections that lose their right, too
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.state.spec, w.state.valid, w.state.applied = spec, true, w.d.now()
	w.mu.Unlock()
	if changes > 0 {
		w.d.counters.transactions.Add(1)
	}
	w.log.Debug("rules in force", "reason", cause, "mode", spec.Mode.String(), "count", changes, "took", time.Since(begin))
	w.tellWarnings(g)
	w.tellSeizures(g)
	if err := w.openMeter(g); err != nil {
		w.log.Warn("counters not read", "err", err)
	}
	return beyond
}

// sameSpec: a side may list tens of thousands, and mostly it is one list twice.
func sameSpec(a, b firewall.Spec) bool {
	if !a.Sides.Equal(b.Sides) {
		return false
	}
	a.Sides, b.Sides = policy.Sides{}, policy.Sides{}
	return reflect.DeepEqual(a, b)
}

// tellWarnings passes on what this kernel, or this workload's kind of interface, cannot do.
func (w *workload) tellWarnings(g *grip) {
	var own []string
	for _, text := range g.ns.Warnings() {
		if strings.HasPrefix(text, "this kernel") {
			w.d.warn("kernel: "+text, text) // the same for all
		} else {
			own = append(own, text)
		}
	}
	text := ""
	if len(own) > 0 {
		text = w.String() + ": " + strings.Join(own, "; ")
	}
	w.d.warn("interfaces "+w.id, text)
	w.tellGap(own)
}

// wanted is what the namespace should hold.
func (w *workload) wanted(g *grip) (firewall.Spec, error) {
	view := w.d.index.View()
	me := view.Workload(w.id)
	if me == nil {
		return firewall.Spec{}, errWithdrawn
	}
	ifcs, err := w.interfaces()
	if err != nil {
		return firewall.Spec{}, err
	}
	mode := w.d.modes.Load().of(me.Service)
	return firewall.Spec{Mode: mode, Sides: w.d.cfg.OnDeny.told(w.sides(g, view, me)), Interfaces: ifcs, Redirected: g.redirected,
		Resolvers: w.resolvers(), AnswersClosed: w.d.cfg.DropUnreadAnswers, Hear: mode == policy.Learn || w.d.rules.Load().triesNames(view, me), NoQueue: firewall.NoAnswerQueue()}, nil
}

// open takes the namespace: the flow log first, so that the rules' first message finds a reader.
func (w *workload) open(ctx context.Context, g *grip) error {
	if g.ns != nil {
		return nil
	}
	r := w.stored()
	reader, err := firewall.NewReader(firewall.ReaderConfig{Namespace: r.NetNS, Workload: w.id, Confirm: true})
	if err != nil {
		return err
	}
	ifcs, err := w.interfaces()
	if err != nil {
		return errors.Join(err, reader.Close())
	}
	ns, err := firewall.Open(firewall.Config{NetNS: r.NetNS, Interfaces: ifcs, Socket: w.d.holding.takeUp(w.cookie)})
	if err != nil {
		return errors.Join(err, reader.Close())
	}
	w.d.holding.used(w.cookie)
	w.d.hold(w.cookie, ns)
	if err := w.d.logs.Add(reader, w.onLog, w.onLogEnd); err != nil {
		return errors.Join(err, ns.Close(), reader.Close())
	}
	g.ns, g.reader, g.logTold = ns, reader, firewall.ReaderStats{}
	g.inode = 0
	var st unix.Stat_t
	if unix.Stat(r.NetNS, &st) == nil {
		g.inode = st.Ino
	}
	w.mu.Lock()
	w.reader = reader
	w.mu.Unlock()
	// Without a watch the rules hold all the same; the sweep finds what it would have told.
	if err := w.openWatch(g); err != nil {
		w.log.Error("namespace not watched", "err", err)
	}
	w.locate(g)
	w.followRedirects(g)
	return nil
}

// release lets go of the namespace, or takes the rules out of it.
func (w *workload) release(ctx context.Context, g *grip) {
	if g.ns == nil {
		if errors.Is(context.Cause(ctx), errRemoved) {
			// It was never opened, or the adoption failed: rules of a former daemon may be there.
			_ = w.open(context.WithoutCancel(ctx), g)
		}
		if g.ns == nil {
			return
		}
	}
	g.answers.close(w)
	w.d.logs.Remove(g.reader)
	w.judgeLog(g)
	w.readUsage(g) // what passed since the last time is not lost
	var err error
	if errors.Is(context.Cause(ctx), errRemoved) {
		if g.watch != nil {
			err = g.watch.Remove()
		}
		err = errors.Join(err, g.ns.Remove())
		w.d.letGo(w.cookie)
	} else {
		err = g.ns.Close()
	}
	if err != nil {
		w.log.Warn("namespace not released", "err", err)
	}
	if g.watch != nil {
		if err := g.watch.Close(); err != nil {
			w.log.Warn("watch not closed", "err", err)
		}
	}
	if g.meter != nil {
		if err := g.meter.Close(); err != nil {
			w.log.Warn("counters not closed", "err", err)
		}
	}
	if err := g.reader.Close(); err != nil {
		w.log.Warn("flow log not closed", "err", err)
	}
	w.mu.Lock()
	w.reader = nil
	w.mu.Unlock()
	w.d.counters.addReader(g.reader.Stats())
}
