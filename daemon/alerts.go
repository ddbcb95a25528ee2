package daemon

import (
	"context"
	"encoding/json"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/api"
)

// alertQueue is how many alerts a follower may lag behind.
const alertQueue = 1024

func ofKind(kind string) func(*alert.Alert) bool {
	return func(a *alert.Alert) bool { return kind == "" || string(a.Kind) == kind }
}

// Alerts gives the alerts that are remembered, newest last, as JSON.
func (d *Daemon) Alerts(_ context.Context, kind string, limit int) ([]json.RawMessage, error) {
	list := d.ring.Last(limit, ofKind(kind))
	out := make([]json.RawMessage, 0, len(list))
	for _, a := range list {
		raw, err := json.Marshal(a)
		if err != nil {
			return nil, err
		}
		out = append(out, raw)
	}
	return out, nil
}

// FollowAlerts sends limit past alerts and then each as it is sent, until ctx ends.
func (d *Daemon) FollowAlerts(ctx context.Context, kind string, limit int, send func(json.RawMessage) error) error {
	keep := ofKind(kind)
	past, sub := d.ring.Follow(alertsKept, alertQueue)
	defer sub.Close()
	pass := func(a alert.Alert) error {
		raw, err := json.Marshal(a)
		if err != nil {
			return err
		}
		return send(raw)
	}
	var wanted []alert.Alert
	for i := range past {
		if keep(&past[i]) {
			wanted = append(wanted, past[i])
		}
	}
	wanted = wanted[len(wanted)-min(limit, len(wanted)):]
	for _, a := range wanted {
		if err := pass(a); err != nil {
			return err
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case a := <-sub.C():
			if missed := sub.Missed(); missed > 0 {
				return api.Errorf(api.TooSlow, "%d alerts were missed; ask again", missed)
			}
			if !keep(&a) {
				continue
			}
			if err := pass(a); err != nil {
				return err
			}
		}
	}
}
