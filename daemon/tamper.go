package daemon

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/firewall"
)

const (
	// tamperQueue is how many events may wait for the workload's routine. They fold in the alerts
	// anyway; when somebody floods, one of many is enough.
	tamperQueue = 64
	// checkTries bounds the readings of a ruleset that changes while it is read.
	checkTries = 5
	// newcomerWait is how long an interface or address that came up may wait for the ADD that
	// explains it: a runtime makes the interface of a second network before it tells us.
	newcomerWait = 3 * time.Second
)

// openWatch begins to watch the namespace for what others do there.
func (w *workload) openWatch(ctx context.Context, g *grip) error {
	watch, err := firewall.NewWatch(firewall.WatchConfig{Namespace: w.stored().NetNS, Own: g.ns, Adopted: w.adopted})
	if err != nil {
		return err
	}
	g.watch = watch
	g.helper.Add(1)
	go func() {
		defer g.helper.Done()
		if err := watch.Run(ctx, func(e firewall.Event) { g.note(ctx, e) }); err != nil && ctx.Err() == nil {
			w.log.Error("watch ended", "err", err)
		}
	}()
	return nil
}

// note passes an event to the routine.
func (g *grip) note(ctx context.Context, e firewall.Event) {
	select {
	case g.events <- e:
	case <-ctx.Done():
	default:
	}
}

// onEvent is told of what somebody else did in the namespace. What might be the beginning of an ADD
// waits a little.
func (w *workload) onEvent(g *grip, e firewall.Event) {
	switch e.Kind {
	case firewall.EventLink, firewall.EventAddress:
		if len(g.newcomers) < tamperQueue {
			g.newcomers = append(g.newcomers, newcomer{e, w.stored().Interfaces})
		}
	case firewall.EventBlind:
		w.log.Warn("events lost", "reason", e.What)
		w.sweep(g)
	default:
		w.tampered(g, e)
	}
}

// newcomer is an event about an interface, with what the workload had when it came.
type newcomer struct {
	firewall.Event
	had []StoredInterface
}

// judgeNewcomers tells of those that no ADD or DEL explained in time.
func (w *workload) judgeNewcomers(g *grip) {
	for len(g.newcomers) > 0 && time.Since(g.newcomers[0].Time) >= newcomerWait {
		n := g.newcomers[0]
		g.newcomers = g.newcomers[1:]
		now := w.stored().Interfaces
		if slices.EqualFunc(n.had, now, func(a, b StoredInterface) bool { return a.Name == b.Name && sameInterface(a, b) }) {
			w.tampered(g, n.Event)
		}
	}
}

// tampered alerts. Where what we hold is not as it was, it is put back at once.
func (w *workload) tampered(g *grip, e firewall.Event) {
	drift, err := check(g.ns)
	w.alert(alert.Tampering{Time: e.Time, What: e.What, Table: e.Table, Process: e.Process, PID: e.PID, Harmless: drift == nil})
	w.repair(err)
}

// check compares what the kernel holds with what it should. A ruleset that somebody changes at that
// very moment cannot be read, which is no drift: it is read again.
func check(ns *firewall.Namespace) (drift *firewall.Drift, err error) {
	for range checkTries {
		if err = ns.Check(); err == nil || errors.As(err, &drift) || errors.Is(err, firewall.ErrGone) {
			break
		}
	}
	return drift, err
}

// sweep compares what the kernel holds with what it should, though nobody told of a change.
func (w *workload) sweep(g *grip) {
	drift, err := check(g.ns)
	if drift != nil {
		w.alert(alert.Tampering{Time: w.d.now(), What: drift.Error()})
	}
	w.repair(err)
}

func (w *workload) alert(t alert.Tampering) {
	t.Workload = w.d.index.View().Workload(w.id)
	w.d.alerts.Send(t.Alert(w.d.cfg.Node))
}

// repair makes the next reconcile write although nothing is wanted anew.
func (w *workload) repair(err error) {
	if err == nil || errors.Is(err, firewall.ErrGone) {
		return // the routine looks for the namespace itself
	}
	w.log.Warn("rules drifted", "err", err)
	w.mu.Lock()
	w.state.valid = false
	w.mu.Unlock()
	w.kick("drift")
}
