package daemon

import (
	"context"
	"fmt"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/lint"
	"github.com/bulkhead-firewall/bulkhead/policy/simulate"
)

// Preview says what a request would change of what was seen. Nothing is changed.
func (d *Daemon) Preview(_ context.Context, r api.ApplyRequest) (api.Preview, error) {
	d.change.Lock()
	p, err := d.planRequest(r)
	d.change.Unlock()
	if err != nil {
		return api.Preview{}, err
	}
	out := d.compare(p)
	out.Created, out.Changed, out.Removed, out.Modes = p.result.Created, p.result.Changed, p.result.Removed, p.result.Modes
	out.Warnings = d.lint(p)
	return out, nil
}

// maxLinted bounds the policies that a preview looks through: it is asked before every apply.
const maxLinted = 2000

// lint gives what lint says of the policies that a plan touches, beside all others; notes are left to
// people who ask for them.
func (d *Daemon) lint(p *plan) []string {
	if len(p.held) > maxLinted || len(p.diff) == 0 {
		return p.result.Warnings
	}
	touched := map[string]bool{}
	for _, x := range p.diff {
		touched[x.Key.String()] = touched[x.Key.String()] || x.after != nil
	}
	var out []string
	for _, f := range lint.Check(p.rules.full, d.index.View(), lint.Options{Now: p.at, Strict: true}) {
		if touched[f.Policy] && f.Severity != lint.Note && len(out) < maxWarnings {
			out = append(out, f.String())
		}
	}
	return out
}

// world is a state of policies and modes, to be held against what was seen.
func world(view *identity.View, set *policy.Set, m *modes) simulate.World {
	return simulate.World{
		Set:   set,
		Judge: func(c policy.Connection) policy.Decision { return set.Evaluate(view, c) },
		Outcome: func(d policy.Decision, c policy.Connection) policy.Verdict {
			return outcome(d, m.modeOf(c.Client), m.modeOf(c.Server))
		},
	}
}

// seenEdge is an edge of the graph as simulate takes it. One that was only ever refused counts none.
func seenEdge(view *identity.View, e *flow.Edge) simulate.Edge {
	out := simulate.Edge{
		Client: e.Client.String(), Server: e.Server.String(), Clients: peersOf(view, e.Client, e.Clients), Servers: peersOf(view, e.Server, e.Servers),
		Protocol: e.Protocol, Port: e.Port, Denied: e.Denied(), First: e.First, Last: e.Last,
		Names: e.NameList(),
	}
	if e.Allowed() {
		out.Count = max(e.Count()+e.WouldDeny(), 1)
	}
	return out
}

// compare holds the seen edges against what is in force and against a plan.
func (d *Daemon) compare(p *plan) api.Preview {
	view := d.index.View()
	edges := d.edges()
	seen := make([]simulate.Edge, 0, len(edges))
	rows := make(map[string]*flow.Edge, len(edges))
	for i := range edges {
		seen = append(seen, seenEdge(view, &edges[i]))
		rows[nameOfEdge(&seen[i])] = &edges[i]
	}
	now, next := world(view, p.before.set, p.fit), world(view, p.rules.set, p.modes)
	report := simulate.Compare(&now, next, seen)
	row := func(list []simulate.Change) []api.PreviewRow {
		out := make([]api.PreviewRow, 0, len(list))
		for _, c := range list {
			out = append(out, api.PreviewRow{Edge: edgeRow(rows[nameOfEdge(&c.Edge)]), Reason: c.Reason, Rule: c.Rule})
		}
		return out
	}
	out := api.Preview{Breaks: row(report.Breaks), Opens: row(report.Opens)}
	touched := map[policy.Key]bool{}
	for _, x := range p.diff {
		touched[x.Key] = touched[x.Key] || !x.shadow && x.after != nil
	}
	for _, u := range report.Unused() {
		if touched[u.Policy] && u.Action == policy.ActionAllow {
			out.Unused = append(out.Unused, u.Rule)
		}
	}
	return out
}

// nameOfEdge tells edges apart, as flow.Key does.
func nameOfEdge(e *simulate.Edge) string {
	return fmt.Sprintf("%s → %s %s", e.Client, e.Server, flow.PortName(e.Protocol, e.Port))
}
