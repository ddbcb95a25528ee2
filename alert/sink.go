package alert

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Sink is a destination of alerts. Send is called from one goroutine.
type Sink interface {
	Send(Alert) error
}

// Dispatcher brings alerts from whoever sees something to all sinks, off the path of those who
// report: Report and Send never block. Run must be running.
type Dispatcher struct {
	judge   *Judge
	folder  *Folder
	sinks   []Sink
	onError func(error)
	queue   chan item

	sent    atomic.Uint64
	dropped atomic.Uint64
	unsent  atomic.Uint64

	lastError string
	errorAt   time.Time
}

// item is a case to judge, or an alert that needs no judging.
type item struct {
	c *Case
	a Alert
}

// queueLen is how many cases may wait for the dispatcher; some 500 bytes each.
const queueLen = 8192

// beat is how often held alerts and ended windows are looked for.
const beat = 200 * time.Millisecond

// Stats counts alerts, and what was lost of them.
type Stats struct {
	Sent    uint64 `json:"sent"`    // alerts handed to the sinks, folded ones not counted
	Dropped uint64 `json:"dropped"` // cases that found the queue full
	Unsent  uint64 `json:"unsent"`  // alerts that a sink could not take
}

// NewDispatcher wires judge, folder and sinks. onError hears of a sink that fails: at once, and
// then at most once a minute while it goes on for the same reason. It is called from Run's
// goroutine.
func NewDispatcher(j *Judge, f *Folder, onError func(error), sinks ...Sink) *Dispatcher {
	return &Dispatcher{judge: j, folder: f, sinks: sinks, onError: onError, queue: make(chan item, queueLen)}
}

// Report hands over a connection to be judged.
func (d *Dispatcher) Report(c Case) { d.enqueue(item{c: &c}) }

// Send hands over an alert that needs no judging: Tampering.Alert.
func (d *Dispatcher) Send(a Alert) { d.enqueue(item{a: a}) }

func (d *Dispatcher) enqueue(it item) {
	select {
	case d.queue <- it:
	default:
		d.dropped.Add(1)
	}
}

// Stats returns the counters.
func (d *Dispatcher) Stats() Stats {
	return Stats{Sent: d.sent.Load(), Dropped: d.dropped.Load(), Unsent: d.unsent.Load()}
}

// Run works until ctx ends, then sends what is still held back, and returns.
func (d *Dispatcher) Run(ctx context.Context) {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case it := <-d.queue:
			d.take(it)
		case <-tick.C:
			d.fold(d.judge.Due())
			d.emit(d.folder.Due())
		case <-ctx.Done():
			d.drain()
			return
		}
	}
}

func (d *Dispatcher) take(it item) {
	if it.c == nil {
		d.emit(d.folder.Add(it.a, 0))
		return
	}
	if a := d.judge.Judge(*it.c); a != nil {
		d.emit(d.folder.Add(*a, 0))
	}
}

func (d *Dispatcher) drain() {
	for {
		select {
		case it := <-d.queue:
			d.take(it)
		default:
			d.fold(d.judge.Flush())
			d.emit(d.folder.Flush())
			return
		}
	}
}

func (d *Dispatcher) fold(list []Held) {
	for _, h := range list {
		d.emit(d.folder.Add(h.Alert, h.From))
	}
}

func (d *Dispatcher) emit(list []Alert) {
	for _, a := range list {
		d.sent.Add(1)
		for _, s := range d.sinks {
			if err := s.Send(a); err != nil {
				d.unsent.Add(1)
				d.complain(err)
			}
		}
	}
}

func (d *Dispatcher) complain(err error) {
	now := time.Now()
	if d.onError == nil || err.Error() == d.lastError && now.Sub(d.errorAt) < time.Minute {
		return
	}
	d.lastError, d.errorAt = err.Error(), now
	d.onError(err)
}

// Held is an alert that Judge kept back for a moment, with the end that reported it.
type Held struct {
	Alert Alert
	From  policy.Direction
}
