package daemon

import (
	"context"
	"fmt"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Names lists what local workloads learned from DNS answers.
func (d *Daemon) Names(context.Context) ([]api.Name, error) {
	out := []api.Name{}
	for _, w := range d.local() {
		w.names.mu.Lock()
		entries := w.names.entries
		w.names.mu.Unlock()
		for _, k := range w.names.Known(false) {
			row := api.Name{Workload: w.String(), Name: k.Name, IP: k.Addr.String(), Until: k.Until, InUse: k.Used, Opens: []string{}}
			for _, e := range entries {
				if policy.MatchesName(e.Name, k.Name) {
					row.Opens = append(row.Opens, opensText(e))
				}
			}
			out = append(out, row)
		}
	}
	return out, nil
}

// opensText is what an entry allows: "TCP/443", "UDP/9000-9009", "TCP", "everything".
func opensText(e policy.NameEntry) string {
	text := flow.PortName(e.Protocol, e.Port)
	switch {
	case e.Protocol == 0:
		return "everything"
	case e.Port == 0 && e.EndPort == 65535:
		return e.Protocol.String()
	case e.EndPort > e.Port:
		return fmt.Sprintf("%s-%d", text, e.EndPort)
	}
	return text
}

// tellNames says in status what of names is not as it should be.
func (w *workload) tellNames(l *listener) {
	text := ""
	if l != nil {
		s := l.Stats()
		if s.Unseen > l.unseen {
			text = fmt.Sprintf("%s: %d DNS answers came from inside its own namespace, and were not believed", w, s.Unseen)
		}
		if n := s.Failed - l.failed; n > 0 && text == "" {
			text = fmt.Sprintf("%s: names of %d DNS answers could not be put in force", w, n)
		}
		l.unseen, l.failed = s.Unseen, s.Failed
	}
	if n := w.names.Stats(); text == "" && n.Refused > w.names.refused {
		text = fmt.Sprintf("%s: %d addresses were learned too fast, or are too many: what policy allows by their names stays closed", w, n.Refused-w.names.refused)
	}
	w.names.refused = w.names.Stats().Refused
	w.d.warn("names "+w.id, text)
}
