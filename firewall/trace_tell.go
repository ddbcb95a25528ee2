package firewall

import (
	"strings"
	"time"
)

// decided says whether the probe's fate is known, and how long to go on listening.
func (t *Trace) decided(events []traceEvent) (time.Duration, bool) {
	got := t.tell(events)
	for _, s := range append(got.Steps[:], got.Node) {
		if s.Fate == Dropped {
			return 0, true
		}
	}
	switch {
	case t.to == nil && got.Steps[AtClientGuard].Fate == Passed:
		return traceNode, true
	case t.to != nil && got.Steps[AtServer].Fate == Passed && got.Steps[AtServer].Table != "":
		return traceGrace, true
	}
	return 0, false
}

// tell makes steps of events.
func (t *Trace) tell(events []traceEvent) Traced {
	var out Traced
	if t.to == nil {
		out.Steps[AtServerGuard].Fate, out.Steps[AtServer].Fate = NotHere, NotHere
	}
	var path [onNode + 1][]traceEvent
	for _, e := range events {
		path[e.stage] = append(path[e.stage], e)
	}
	for s := range out.Steps {
		if len(path[s]) > 0 {
			out.Steps[s] = stepOf(path[s])
		}
	}
	if len(path[onNode]) > 0 {
		out.Node = stepOf(path[onNode])
	}
	return out
}

// stepOf reads the rules that a packet met in one place, that which turned tracing on among them.
func stepOf(path []traceEvent) Step {
	step := Step{Fate: Passed}
	use := func(e traceEvent) {
		step.Table, step.Chain, step.Rule, step.Comment = e.table, e.chain, e.rule.Text, e.rule.Comment
	}
	for _, e := range path {
		switch {
		case e.drop:
			step.Fate, step.Rejected = Dropped, strings.Contains(e.rule.Text, rejectText)
			use(e)
			return step
		case e.ours && !bookkeeping(e.chain):
			use(e)
			step.Alerted = alerted(e.rule)
		}
	}
	return step
}

// bookkeeping says whether a chain only remembers and logs what another let through.
func bookkeeping(chain string) bool {
	for _, suffix := range []string{"_seen", "_udp", "_reply", "_birth", "_ping", "_alert", "_wide"} {
		if strings.HasSuffix(chain, suffix) {
			return true
		}
	}
	return false
}

// alerted says whether a rule lets through what enforce would deny.
func alerted(r Rule) bool {
	return strings.HasSuffix(r.Text, "_alert") || strings.Contains(r.Text, "@denied_") && strings.HasSuffix(r.Text, " accept")
}
