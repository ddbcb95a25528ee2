package daemon

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/flow"
)

// whoLostNames bounds the workloads that status names for what they lost.
const whoLostNames = 5

// routineLogs reads the flow logs of all workloads until ctx ends.
func (d *Daemon) routineLogs(ctx context.Context) {
	if err := d.logs.Run(ctx); err != nil {
		d.log.Error("flow logs ended", "err", err)
		d.warn("flow logs", fmt.Sprintf("nothing is learned or alerted: %v; restart the daemon", err))
	}
}

// onLog is called by routineLogs, and by the workload's own routine for what is left at its end.
func (w *workload) onLog(r flow.Record) { w.d.onRecord(w.id, r) }

func (w *workload) onLogEnd(err error) { w.log.Error("flow log ended", "err", err) }

// judgeLog alerts when messages came that only look like our rules'. They were not believed.
func (w *workload) judgeLog(g *grip) {
	if g.reader == nil {
		return
	}
	now := g.reader.Stats()
	if now.Forged > g.logTold.Forged {
		w.alert(alert.Tampering{Time: w.d.now(), Harmless: true, What: fmt.Sprintf(
			"flow records are forged: a rule that is not ours logs to NFLOG group %d with our prefix; none was believed", firewall.LogGroup)})
	}
	g.logTold = now
}

// whoLost names the workloads whose flow log lost most: ": shop/evil 97245, shop/web 3".
func (d *Daemon) whoLost() string {
	type loser struct {
		name string
		lost uint64
	}
	var losers []loser
	for _, w := range d.local() {
		w.mu.Lock()
		reader := w.reader
		w.mu.Unlock()
		if reader == nil {
			continue
		}
		if s := reader.Stats(); s.Lost+s.Doubtful > 0 {
			losers = append(losers, loser{w.String(), s.Lost + s.Doubtful})
		}
	}
	slices.SortFunc(losers, func(a, b loser) int {
		return cmp.Or(cmp.Compare(b.lost, a.lost), cmp.Compare(a.name, b.name))
	})
	var names []string
	for _, l := range losers[:min(len(losers), whoLostNames)] {
		names = append(names, fmt.Sprintf("%s %d", l.name, l.lost))
	}
	if len(names) == 0 {
		return ""
	}
	return ": " + strings.Join(names, ", ")
}
