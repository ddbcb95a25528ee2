package daemon

import (
	"strings"

	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// meter reads one workload's counters back, and knows which of its named counters were told already.
type meter struct {
	*firewall.Meter
	overflow uint64
	began    bool // overflow is a figure that was read
}

// openMeter is called once the workload's rules are in force.
func (w *workload) openMeter(g *grip) error {
	if g.meter != nil {
		return nil
	}
	r := w.stored()
	m, err := firewall.NewMeter(firewall.MeterConfig{Namespace: r.NetNS, Workload: w.id, Addrs: addrsOf(r.Interfaces)})
	if err != nil {
		return err
	}
	g.meter = &meter{Meter: m}
	w.readUsage(g) // the first reading only takes the figures
	return nil
}

// readUsage tells what passed since the last time: volumes of known edges, repeats of what was
// denied, sets that are full.
func (w *workload) readUsage(g *grip) {
	if g.meter == nil {
		return
	}
	u, err := g.meter.Read()
	if err != nil {
		w.log.Warn("counters not read", "err", err)
		return
	}
	for _, r := range u.Seen {
		w.d.onRecord(w.id, r)
	}
	mode := w.inForce().spec.Mode
	for _, r := range u.Denied {
		r.Event = flow.Denied
		if mode != policy.Enforce { // the set is the same; what was in it passed
			r.Event, r.Verdict = flow.Birth, policy.Alert
		}
		w.d.onRecord(w.id, r)
	}
	now := u.Counters[firewall.CounterOverflow]
	if g.meter.began && now > g.meter.overflow {
		w.d.counters.overflow.Add(now - g.meter.overflow)
	}
	g.meter.overflow, g.meter.began = now, true
	var full []string
	for _, s := range u.Sets {
		if s.Full() {
			full = append(full, s.Set)
		}
	}
	text := ""
	if len(full) > 0 {
		text = w.String() + ": sets " + strings.Join(full, ", ") + " are full: new peers are judged, but neither told nor counted"
	}
	w.d.warn("sets "+w.id, text)
}
