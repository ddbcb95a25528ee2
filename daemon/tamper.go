package daemon

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/firewall"
)

const (
	// tamperQueue is how many events may wait for the workload's routine. They fold in the alerts
	// anyway; when somebody floods, one of many is enough, and that some are missing is known.
	tamperQueue = 64
	// checkTries bounds the readings of a ruleset that changes while it is read.
	checkTries = 5
	// checkShare bounds what somebody who changes things in a loop can make us spend on looking at it:
	// after a check of the rules nothing is checked for so many times as long, at most checkPause.
	checkShare = 20
	checkPause = 400 * time.Millisecond
	// lookEvery is how often a workload's interfaces, routes and sysctls are looked at: the kernel tells
	// of most at once, and of some never.
	lookEvery = 10 * time.Second
	// linkWait is how long an interface that came is given until its other end is there, too: the kernel
	// makes the ends of a veth one after the other, and tells of the first before the second is known.
	linkWait = 200 * time.Millisecond
)

// suspicion is what a workload's routine has heard and not judged yet.
type suspicion struct {
	events chan firewall.Event // of the watch
	lost   atomic.Bool         // some found the channel full

	pending []firewall.Event
	due     <-chan time.Time // when they are judged; nil: nothing is pending
	rest    time.Time        // not before
	looked  time.Time
	again   bool // the interfaces are to be located again
}

// openWatcher makes what hears of changes in all workloads' namespaces.
func (d *Daemon) openWatcher() (err error) {
	d.watcher, err = firewall.NewWatcher()
	return err
}

// routineWatcher hears of changes until ctx ends.
func (d *Daemon) routineWatcher(ctx context.Context) {
	if err := d.watcher.Run(ctx); err != nil {
		d.log.Error("namespaces are not watched any more; the sweep goes on", "err", err)
		d.warn("watcher", "changes in containers are noticed by the sweep only: "+err.Error())
	}
}

// openWatch begins to watch the namespace for what others do there.
func (w *workload) openWatch(g *grip) (err error) {
	g.watch, err = w.d.watcher.Watch(firewall.WatchConfig{Namespace: w.stored().NetNS, Own: g.ns, Adopted: w.adopted, Tell: g.heard.note})
	return err
}

// note passes an event to the routine, and never waits.
func (s *suspicion) note(e firewall.Event) {
	select {
	case s.events <- e:
	default:
		s.lost.Store(true)
	}
}

// onEvent is told of what somebody else did in the namespace. The first is judged at once; what comes
// soon after it is judged together.
func (w *workload) onEvent(g *grip, e firewall.Event) {
	s := &g.heard
	if len(s.pending) >= tamperQueue {
		s.lost.Store(true)
		return
	}
	s.pending = append(s.pending, e)
	s.plan(e)
}

// plan sees to it that an event is judged in time.
func (s *suspicion) plan(e firewall.Event) {
	if s.due != nil {
		return
	}
	at := s.rest
	if ripe := e.Time.Add(linkWait); e.Came && ripe.After(at) {
		at = ripe
	}
	s.due = time.After(max(0, time.Until(at)))
}

// judgeEvents looks at what is in force, puts it right, and tells of everything that was heard. What
// might be the beginning of an ADD waits a little.
func (w *workload) judgeEvents(g *grip) {
	s := &g.heard
	events, began := s.pending, time.Now()
	s.pending, s.due = nil, nil
	if s.lost.Swap(false) {
		events = append(events, firewall.Event{Time: began, Kind: firewall.EventBlind, What: "more happened than could be told"})
	}
	drift, err := check(g.ns)
	w.repair(err)
	w.locate(g)
	w.followRedirects(g)
	var told firewall.Event
	for _, e := range events {
		switch {
		case e.Came && began.Sub(e.Time) < linkWait:
			s.pending = append(s.pending, e)
			continue
		case w.explained(e), w.isNewcomer(g, e):
			continue
		case e.Kind == firewall.EventBlind:
			w.log.Warn("events lost", "reason", e.What)
			told = firewall.Event{}
			if drift == nil {
				continue
			}
		}
		told = e
		w.tampered(e, drift == nil)
	}
	if drift != nil && told.Kind != firewall.EventNftables {
		// Nobody told of what made the rules another.
		w.alert(alert.Tampering{Time: began, What: drift.Error(), Table: "inet " + firewall.TableName, Advice: adviceDrift})
	}
	s.rest = time.Now().Add(min(checkShare*time.Since(began), checkPause))
	if len(s.pending) > 0 {
		s.plan(s.pending[0])
	}
}

// tampered alerts.
func (w *workload) tampered(e firewall.Event, harmless bool) {
	t := alert.Tampering{Time: e.Time, What: e.What, Table: e.Table, Process: e.Process, PID: e.PID, Harmless: harmless}
	t.Why, t.Advice, t.Severity = w.odd(e)
	if e.PID == 0 && e.Process == "" {
		t.Process, t.PID, t.Others = w.culprit(e.Port)
	}
	w.alert(t)
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
		w.alert(alert.Tampering{Time: w.d.now(), What: drift.Error(), Table: "inet " + firewall.TableName, Advice: adviceDrift})
	}
	w.repair(err)
	w.locate(g)
	w.followRedirects(g)
}

// look finds what the kernel tells nobody of: sysctls above all.
func (w *workload) look(g *grip) {
	if g.watch == nil || time.Since(g.heard.looked) < lookEvery {
		return
	}
	g.heard.looked = time.Now()
	if err := g.watch.Look(); err != nil {
		w.log.Warn("namespace not looked at", "err", err)
	}
}

// tellSeizures alerts of tables of ours that somebody had taken while nobody held them.
func (w *workload) tellSeizures(g *grip) {
	for _, s := range g.ns.Seizures() {
		w.alert(alert.Tampering{Time: w.d.now(), What: s.String(), Table: s.Table, Process: s.Process, PID: s.PID,
			Why:    "until then the namespace's own rules were whatever that process wanted; the guard on the host's end held",
			Advice: "end that container, and run bulkheadd holder, so that the rules belong to somebody while the daemon is away"})
	}
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
