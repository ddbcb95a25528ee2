package daemon

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// confirmLook is how often a deadline is looked at (Go's timers stand still while the machine sleeps,
// the clock of the deadline does not), and how soon an undo that could not be stored is tried again.
const confirmLook = time.Second

// StoredPending is a change that is undone at its deadline unless it is confirmed.
type StoredPending struct {
	Generation uint64    `json:"generation"`
	Who        string    `json:"who"`
	Began      time.Time `json:"began"`
	Deadline   time.Time `json:"deadline"`

	// Within one boot the deadline is a time since boot: no change of the clock moves it.
	Boot      string        `json:"boot"`
	SinceBoot time.Duration `json:"sinceBoot"`
}

// left is how long a pending change has. In another boot than the one it began in only the clock
// tells; one that was set back does not make it live longer than it was given.
func (p *StoredPending) left(at moment) time.Duration {
	if p.Boot != "" && p.Boot == at.boot {
		return p.SinceBoot - at.sinceBoot
	}
	return min(p.Deadline.Sub(at.wall), p.Deadline.Sub(p.Began))
}

// moment is now, on both clocks.
type moment struct {
	wall      time.Time
	boot      string // which boot of the machine; empty: not known
	sinceBoot time.Duration
}

func (d *Daemon) moment() moment {
	m := moment{wall: d.now()}
	var ts unix.Timespec
	if id, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil && unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) == nil {
		m.boot, m.sinceBoot = strings.TrimSpace(string(id)), time.Duration(ts.Nano())
	}
	return m
}

// await makes a plan wait for confirmation, where its caller asked for that.
func (d *Daemon) await(p *plan) {
	if p.confirm == 0 {
		return
	}
	g, now := p.change.Generation, d.moment()
	g.State = statePending
	pending := &StoredPending{
		Generation: g.Number, Who: g.Who, Began: now.wall, Deadline: now.wall.Add(p.confirm).Round(0),
		Boot: now.boot, SinceBoot: now.sinceBoot + p.confirm,
	}
	p.change.Pending = &pending
}

// setPending says what waits for confirmation from now on; nil is nothing.
func (d *Daemon) setPending(p *StoredPending) {
	d.pending.Store(p)
	select {
	case d.confirms <- struct{}{}:
	default:
	}
}

// pendingRow is what waits for confirmation as the API tells it, or nil.
func (d *Daemon) pendingRow() *api.Pending {
	p := d.pending.Load()
	if p == nil {
		return nil
	}
	return &api.Pending{Generation: p.Generation, Deadline: p.Deadline, Seconds: max(p.left(d.moment()), 0).Round(time.Millisecond).Seconds(), Who: p.Who}
}

func (p *StoredPending) refusal() error {
	return api.Errorf(api.Conflict, "generation %d of %s waits for confirmation until %s; keep it (bulkhead policy confirm) or undo it (bulkhead policy rollback) first",
		p.Generation, p.Who, p.Deadline.Local().Format("15:04:05"))
}

// notPending refuses a change of policies while another one waits for confirmation. Modes may change
// (going back to learn must always be possible), and undoing is what one may ask for.
func (d *Daemon) notPending(r *api.ApplyRequest) error {
	p := d.pending.Load()
	modes := r.Do == api.DoApply && len(r.Files) == 0 && !r.Prune && r.ConfirmWithin == ""
	if p == nil || modes || r.Do == api.DoRollback && r.ConfirmWithin == "" {
		return nil
	}
	return p.refusal()
}

// Confirm keeps what waits for confirmation.
func (d *Daemon) Confirm(_ context.Context, r api.ConfirmRequest) (api.Pending, error) {
	d.change.Lock()
	defer d.change.Unlock()
	p, row := d.pending.Load(), d.pendingRow()
	if p == nil || r.Generation != 0 && r.Generation != p.Generation {
		return api.Pending{}, d.nothingToConfirm(r.Generation, p)
	}
	if p.left(d.moment()) <= 0 {
		return api.Pending{}, api.Errorf(api.Conflict, "generation %d: its time is over, it is being undone", p.Generation)
	}
	var none *StoredPending
	if err := d.store.Commit(Change{Pending: &none, Settled: map[uint64]string{p.Generation: stateConfirmed}}); err != nil {
		return api.Pending{}, api.Errorf(api.Internal, "%v", err)
	}
	d.setPending(nil)
	d.log.Info("confirmed", "generation", p.Generation)
	return *row, nil
}

// nothingToConfirm says why, so that who comes too late knows what holds now.
func (d *Daemon) nothingToConfirm(n uint64, waits *StoredPending) error {
	if n == 0 {
		n = d.lastAwaited()
	}
	if g, err := d.stored(n); n != 0 && err == nil {
		switch g.State {
		case stateRolledBack:
			return api.Errorf(api.Conflict, "generation %d was rolled back: it was not confirmed in time, or not wanted", n)
		case stateConfirmed:
			return api.Errorf(api.Conflict, "generation %d is confirmed already", n)
		}
	}
	if waits != nil {
		return api.Errorf(api.Conflict, "generation %d does not wait for confirmation; %d does", n, waits.Generation)
	}
	return api.Errorf(api.Conflict, "nothing waits for confirmation")
}

// lastAwaited is the newest generation that somebody had to confirm; 0: none.
func (d *Daemon) lastAwaited() (n uint64) {
	_ = d.store.Generations(func(g StoredGeneration) bool { // what does not decode answers nothing
		if g.State != "" {
			n = g.Number
		}
		return n == 0
	})
	return n
}

// routineConfirm undoes what nobody confirms in time, until ctx ends.
func (d *Daemon) routineConfirm(ctx context.Context) error {
	var next <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.confirms:
		case <-next:
		}
		next = nil
		if p := d.pending.Load(); p != nil {
			wait := p.left(d.moment())
			if wait <= 0 {
				if d.undo(ctx, p) {
					continue
				}
				wait = confirmLook
			}
			next = time.After(min(wait, confirmLook))
		}
	}
}

// undo takes back a change whose deadline has passed. Where the store cannot be written it is undone
// in force all the same, and false asks for another try; until that the store says that it waits, so
// that a daemon that starts meanwhile undoes it too.
func (d *Daemon) undo(ctx context.Context, pending *StoredPending) bool {
	d.change.Lock()
	defer d.change.Unlock()
	if d.pending.Load() != pending {
		return true
	}
	p, err := d.undone, error(nil)
	if p == nil {
		if p, err = d.planUndo(pending, causeDeadline); err == nil {
			err = p.finish()
		}
	}
	if err != nil {
		d.warn("confirm", fmt.Sprintf("generation %d was not confirmed and cannot be undone: %v; undo it by hand", pending.Generation, err))
		return false
	}
	d.number(ctx, p)
	if err = d.commit(p); err != nil {
		if d.undone == nil {
			d.use(ctx, p)
		}
		d.undone = p
		d.warn("confirm", fmt.Sprintf("generation %d was not confirmed; it is undone, which is not stored yet: %v", pending.Generation, err))
		return false
	}
	d.stand(p)
	if d.undone == nil {
		d.use(ctx, p)
	}
	d.rest(p)
	d.undone = nil
	d.warn("confirm", "")
	d.log.Warn("undone", "generation", pending.Generation, "reason", causeDeadline)
	return true
}
