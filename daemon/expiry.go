package daemon

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

const (
	// expiryBeat is how often the clock is looked at for rules that expire: it may be set, and Go's
	// timers do not follow it.
	expiryBeat = time.Second
	// expiresSoon is how long before its end status names a rule.
	expiresSoon = 7 * 24 * time.Hour
	// clockSlack is how far a clock may stand before the newest generation without a warning.
	clockSlack = time.Minute
)

// ending is a rule that ends by itself.
type ending struct {
	slot
	rule string // "shop/cart egress[0] (migration)"
	at   time.Time
}

// endings lists the rules that end, or have ended, by time.
func endings(held map[slot]heldPolicy) []ending {
	var out []ending
	for s, h := range held {
		for _, dir := range []policy.Direction{policy.Ingress, policy.Egress} {
			for i, r := range h.Rules(dir) {
				if r.Expires.IsZero() {
					continue
				}
				e := ending{s, fmt.Sprintf("%s %s[%d]", &h.Policy, dir, i), r.Expires}
				if r.Name != "" {
					e.rule += " (" + r.Name + ")"
				}
				out = append(out, e)
			}
		}
	}
	slices.SortFunc(out, func(a, b ending) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return compareSlots(a.slot, b.slot)
	})
	return out
}

// ended is how many of the endings have passed at a time.
func (rb *rulebook) ended(t time.Time) int {
	return sort.Search(len(rb.ends), func(i int) bool { return rb.ends[i].at.After(t) })
}

// judged is the time by which rules expire: the clock's, but never before the newest generation. A
// machine that starts with a clock in the past does not bring expired rules back.
func (d *Daemon) judged() time.Time {
	now := d.now()
	if newest := time.Unix(0, d.newest.Load()); newest.After(now) {
		return newest
	}
	return now
}

// routineExpiry ends rules when their time has come, until ctx ends.
func (d *Daemon) routineExpiry(ctx context.Context) error {
	return every(ctx, expiryBeat, func() { d.lookAtClock(ctx) })
}

// every does something again and again, until ctx ends.
func every(ctx context.Context, beat time.Duration, do func()) error {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			do()
		}
	}
}

// lookAtClock puts in force what the clock makes of the rules that end. A clock that is set back
// brings them back, as it does when it was wrong before: what holds is always what the policies say of
// the time that it is.
func (d *Daemon) lookAtClock(ctx context.Context) {
	now := d.judged()
	text := ""
	if behind := now.Sub(d.now()); behind > clockSlack {
		text = fmt.Sprintf("the clock stands %v before the newest change of policies: rules expire by the time of that", behind.Round(time.Second))
	}
	d.warn("clock", text)
	if rb := d.rules.Load(); rb.ended(now) == rb.ended(rb.at) && rb.ended(now) == rb.ended(time.Unix(0, d.looked.Load())) {
		return
	}
	d.change.Lock()
	defer d.change.Unlock()
	rb := d.rules.Load()
	was, is := rb.ended(rb.at), rb.ended(now)
	if was != is {
		next, err := rb.as(now)
		if err != nil {
			d.warn("expiry", fmt.Sprintf("rules that have expired hold on: %v", err))
			return
		}
		d.warn("expiry", "")
		d.rules.Store(next)
		wait, cancel := context.WithTimeout(ctx, settleWait)
		defer cancel()
		held := d.settle(wait, "expiry")
		if is < was {
			d.log.Warn("the clock was set back, rules that had expired hold again", "count", was-is)
		} else {
			d.log.Info("rules expired", "count", is-was, "workloads", held)
		}
	}
	d.tellExpired(rb, now)
}

// tellExpired alerts of the rules in force that ended since this was last looked at, also while no
// daemon ran. The caller holds d.change.
func (d *Daemon) tellExpired(rb *rulebook, now time.Time) {
	from, to := rb.ended(time.Unix(0, d.looked.Load())), rb.ended(now)
	for i := from; i < to; i++ {
		e := rb.ends[i]
		if e.shadow {
			continue
		}
		d.alerts.Send(alert.Alert{
			Kind: alert.Expired, Severity: alert.Low, Verdict: policy.Deny, Count: 1, First: e.at, Last: e.at, Node: d.cfg.Node,
			Client: alert.Party{Service: "node"},
			Reason: fmt.Sprintf("rule %s of %s ended at %s, as it says itself", e.rule, e.slot, e.at.UTC().Format(time.RFC3339)),
			Breaks: "policy " + e.slot.String(),
			Advice: "take the rule out, or give it another date and apply it",
		})
	}
	d.looked.Store(now.UnixNano())
	if from == to {
		return
	}
	if err := d.store.PutLooked(now); err != nil {
		d.log.Warn("time of the last look at expiries not stored", "err", err)
	}
}

// expiring names the rules in force that end within expiresSoon.
func (d *Daemon) expiring(rb *rulebook) []string {
	now := d.judged()
	var out []string
	for _, e := range rb.ends[rb.ended(now):] {
		if left := e.at.Sub(now); !e.shadow && left <= expiresSoon {
			out = append(out, fmt.Sprintf("rule %s of %s ends in %s, at %s", e.rule, e.slot, days(left), e.at.UTC().Format(time.RFC3339)))
		}
	}
	return out
}

// days is a span in the unit that fits.
func days(d time.Duration) string {
	if d < 48*time.Hour {
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%d days", int(d/(24*time.Hour)))
}

// bySlot sorts the endings by policy.
func (rb *rulebook) bySlot() map[slot][]ending {
	out := map[slot][]ending{}
	for _, e := range rb.ends {
		out[e.slot] = append(out[e.slot], e)
	}
	return out
}

// expiryOf is when the next of a policy's rules ends, and which have ended.
func expiryOf(ends []ending, now time.Time) (next *time.Time, ended []string) {
	for _, e := range ends {
		if e.at.After(now) {
			return &e.at, ended
		}
		ended = append(ended, e.rule)
	}
	return nil, ended
}
