package daemon

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// errBound says that a workload would hold more than it may.
var errBound = errors.New("bound reached")

// entriesOf is how many (peer, protocol, port) sides put in the kernel.
func entriesOf(s policy.Sides) int {
	return len(s.Egress.Entries) + len(s.Egress.Denied) + len(s.Ingress.Entries) + len(s.Ingress.Denied)
}

// bound keeps a workload from holding more than it may. A change beyond that is refused whole: what is
// in force stays, but for what the node and the resolvers need, which is placed first. Where nothing is
// in force that is all: the workload is isolated as policy says, can ask for names and be probed.
// Nodes' own traffic, the cluster's gossip among it, passes no workload's rules.
func (w *workload) bound(spec firewall.Spec, held inForce) (firewall.Spec, error) {
	n, most := entriesOf(spec.Sides), w.d.cfg.MaxEntries
	if spec.Mode == policy.Learn || n <= most {
		return spec, nil
	}
	err := fmt.Errorf("%w: %s: %d entries, bound %d (maxEntries); the change was refused whole", errBound, w, n, most)
	base := policy.Sides{}
	if held.valid && held.spec.Mode == spec.Mode && entriesOf(held.spec.Sides) <= most {
		base = held.spec.Sides
	} else {
		base.Egress.Isolated, base.Ingress.Isolated = spec.Sides.Egress.Judged(), spec.Sides.Ingress.Judged()
	}
	spec.Sides = policy.Sides{Egress: withEssentials(base.Egress, spec.Sides.Egress), Ingress: withEssentials(base.Ingress, spec.Sides.Ingress)}
	return spec, err
}

// withEssentials is a side in force with the built-in entries of the one that is wanted.
func withEssentials(held, wanted policy.Side) policy.Side {
	if !held.Isolated {
		return held
	}
	builtIn := func(e policy.Entry) bool { return strings.HasPrefix(e.Rule, "built-in ") }
	entries := slices.DeleteFunc(slices.Clone(held.Entries), builtIn)
	for _, e := range wanted.Entries {
		if builtIn(e) && !slices.ContainsFunc(entries, func(o policy.Entry) bool { return o.Peer == e.Peer && o.Protocol == e.Protocol && o.Port == e.Port }) {
			entries = append(entries, e)
		}
	}
	policy.SortEntries(entries)
	held.Entries = entries
	return held
}

// tellBound alerts once for each time that the bound is reached, and shows it until it is not any more.
func (w *workload) tellBound(g *grip, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	w.d.warn("bound "+w.id, text)
	if err != nil && !g.beyond {
		now := w.d.now()
		w.d.alerts.Send(alert.Alert{Kind: alert.Bound, Severity: alert.High, Time: now, First: now, Last: now, Count: 1, Node: w.d.cfg.Node,
			Client: alert.Party{Service: "node"}, Server: alert.Party{Workload: w.String()}, Reason: text, Verdict: policy.Deny,
			Advice: "write blocks in the place of single peers, split the service, or raise maxEntries in bulkheadd's configuration"})
	}
	g.beyond = err != nil
}
