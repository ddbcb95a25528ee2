package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/simulate"
)

// simulation is what `policy simulate` prints.
type simulation struct {
	Breaks  []simulatedEdge `json:"breaks"`
	Opens   []simulatedEdge `json:"opens"`
	Unused  []unusedRule    `json:"unused"`  // rules that no seen edge needs
	Allowed int             `json:"allowed"` // edges that stay allowed; of recorded ones only
	Denied  int             `json:"denied"`  // edges that stay denied; of recorded ones only
	Unknown []simulatedEdge `json:"unknown"` // edges with an end that nobody stands for any more: not judged
}

type simulatedEdge struct {
	Client   string    `json:"client"`
	Server   string    `json:"server"`
	Protocol string    `json:"protocol"`
	Port     uint16    `json:"port"`
	Count    uint64    `json:"count"`
	Denied   uint64    `json:"denied"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	Side     string    `json:"side,omitempty"` // egress or ingress: whose policy decides
	Rule     string    `json:"rule,omitempty"` // that decides; none: the default does
	Reason   string    `json:"reason,omitempty"`
}

type unusedRule struct {
	Policy string `json:"policy,omitempty"`
	Rule   string `json:"rule"`
	Source string `json:"source,omitempty"`
	Action string `json:"action,omitempty"`
}

func (a *app) policySimulate() *cobra.Command {
	var paths, inForce []string
	var flows string
	var only bool
	cmd := &cobra.Command{
		Use:   "simulate -f FILE",
		Short: "What proposed policies would do to the connections that were seen",
		Long: `What proposed policies would do to the connections that were seen: which seen edges would break,
which would open, and which rules no seen edge needs.

Without --flows the daemon is asked, which knows what it saw, the modes, and the policies in force: the
files are put on top of these (those of the same name are replaced). --only leaves out those that were
applied before and are not in the files.
With --flows no daemon is asked: FILE is what "bulkhead graph -o json" or "bulkhead flows -o json"
printed, and -f names the policies and the inventory (see "bulkhead policy verdicts"). Seen edges then
count as allowed until now, unless --in-force names the policies that the files are put on top of.

Exits with 1 where an edge would break.`,
		Example: "  bulkhead policy simulate -f policies/\n  bulkhead policy simulate -f policies/ -f cluster.yaml --flows graph.json --only",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needFiles(cmd, paths); err != nil {
				return err
			}
			if flows == "" && len(inForce) > 0 {
				return usage(cmd, "--in-force is for --flows: the daemon knows what is in force")
			}
			if only && len(inForce) > 0 {
				return usage(cmd, "--only leaves out what --in-force names; give one of them")
			}
			var out simulation
			var err error
			if flows == "" {
				out, err = a.simulateLive(cmd.Context(), paths, only)
			} else {
				out, err = a.simulateRecorded(paths, inForce, flows)
			}
			if err != nil {
				return err
			}
			if err := a.print(out, func() error { return a.printSimulation(out) }); err != nil {
				return err
			}
			if len(out.Breaks) > 0 {
				return &codeError{code: exitError}
			}
			return nil
		},
	}
	filesFlag(cmd, &paths)
	f := cmd.Flags()
	f.StringVar(&flows, "flows", "", "recorded edges or flows instead of the daemon's; - for standard input")
	f.StringSliceVar(&inForce, "in-force", nil, "with --flows: policies that are in force; a file or a folder")
	f.BoolVar(&only, "only", false, "the files alone, not on top of what is in force")
	return cmd
}

// simulateLive is the daemon's preview.
func (a *app) simulateLive(ctx context.Context, paths []string, only bool) (simulation, error) {
	files, err := a.readFiles(paths)
	if err != nil {
		return simulation{}, badInput(err)
	}
	p, err := a.client().Preview(ctx, api.ApplyRequest{Files: files, Prune: only})
	if err != nil {
		return simulation{}, err
	}
	out := newSimulation(&simulate.Report{})
	for _, r := range p.Breaks {
		out.Breaks = append(out.Breaks, edgeOfRow(&r))
	}
	for _, r := range p.Opens {
		out.Opens = append(out.Opens, edgeOfRow(&r))
	}
	for _, rule := range p.Unused {
		out.Unused = append(out.Unused, unusedRule{Rule: rule})
	}
	return out, nil
}

func edgeOfRow(r *api.PreviewRow) simulatedEdge {
	return simulatedEdge{
		Client: r.Client, Server: r.Server, Protocol: r.Protocol, Port: r.Port, Count: r.Count, Denied: r.Denied,
		First: r.First, Last: r.Last, Rule: r.Rule, Reason: r.Reason,
	}
}

// simulateRecorded compares on what files say.
func (a *app) simulateRecorded(paths, inForce []string, flows string) (simulation, error) {
	edges, err := a.readSeen(flows)
	if err != nil {
		return simulation{}, err
	}
	off, err := a.readOffline(paths)
	if err != nil {
		return simulation{}, err
	}
	to, from := off.current(), (*simulate.World)(nil)
	if len(inForce) > 0 {
		base, err := a.readOffline(inForce)
		if err != nil {
			return simulation{}, err
		}
		from = worldOf(off, base.current())
		if to, err = base.set.With(valuesOf(off.set)...); err != nil {
			return simulation{}, badInput(err)
		}
		to = to.At(time.Now())
	}
	r := simulate.Compare(from, *worldOf(off, to), cast(off.cluster, edges))
	return newSimulation(&r), nil
}

func worldOf(off *offline, set *policy.Set) *simulate.World {
	return &simulate.World{Set: set, Judge: func(c policy.Connection) policy.Decision { return off.cluster.Evaluate(set, c) }}
}

// valuesOf lists a set's policies to be put in another, shadows too.
func valuesOf(set *policy.Set) []policy.Policy {
	var out []policy.Policy
	for _, p := range set.Policies() {
		out = append(out, *p)
	}
	for _, p := range set.Shadows() {
		out = append(out, *p)
	}
	return out
}

func newSimulation(r *simulate.Report) simulation {
	out := simulation{
		Breaks: []simulatedEdge{}, Opens: []simulatedEdge{}, Unused: []unusedRule{}, Unknown: []simulatedEdge{},
		Allowed: r.Allowed, Denied: r.Denied,
	}
	for i := range r.Breaks {
		out.Breaks = append(out.Breaks, newSimulatedEdge(&r.Breaks[i]))
	}
	for i := range r.Opens {
		out.Opens = append(out.Opens, newSimulatedEdge(&r.Opens[i]))
	}
	for i := range r.Unknown {
		e := newSimulatedEdge(&simulate.Change{Edge: r.Unknown[i]})
		e.Side = ""
		out.Unknown = append(out.Unknown, e)
	}
	for _, u := range r.Unused() {
		out.Unused = append(out.Unused, unusedRule{Policy: u.Policy.String(), Rule: u.Rule, Source: u.Source, Action: u.Action.String()})
	}
	return out
}

func newSimulatedEdge(c *simulate.Change) simulatedEdge {
	return simulatedEdge{
		Client: c.Client, Server: c.Server, Protocol: c.Protocol.String(), Port: c.Port, Count: c.Count, Denied: c.Denied,
		First: c.First, Last: c.Last, Side: c.Side.String(), Rule: c.Rule, Reason: c.Reason,
	}
}

func (a *app) printSimulation(s simulation) error {
	for _, part := range []struct {
		verb, verdict string
		edges         []simulatedEdge
	}{{"breaks", "deny", s.Breaks}, {"opens", "allow", s.Opens}} {
		for _, e := range part.edges {
			fmt.Fprintf(a.out, "%s  %s → %s %s  %s (%s): %s\n", part.verb, e.Client, e.Server, portOf(e.Protocol, e.Port),
				a.word(part.verdict), seenText(e), e.Reason)
		}
	}
	for _, e := range s.Unknown {
		fmt.Fprintf(a.out, "unknown  %s → %s %s  (%s): nobody stands for one of its ends any more\n", e.Client, e.Server, portOf(e.Protocol, e.Port), seenText(e))
	}
	for _, u := range s.Unused {
		where := ""
		if u.Source != "" {
			where = fmt.Sprintf(" (%s, %s)", u.Action, u.Source)
		}
		fmt.Fprintf(a.out, "unused  %s%s: nothing that was seen needs it\n", u.Rule, where)
	}
	text := plural(len(s.Breaks), "seen edge", "seen edges") + " would break, " + plural(len(s.Opens), "seen edge", "seen edges") + " would open"
	if s.Allowed+s.Denied > 0 {
		text += fmt.Sprintf(", %d stay allowed, %d stay denied", s.Allowed, s.Denied)
	}
	_, err := fmt.Fprintln(a.out, text)
	return err
}

func seenText(e simulatedEdge) string {
	text := fmt.Sprintf("seen x%d", e.Count)
	if e.Count == 0 {
		text = fmt.Sprintf("denied x%d", e.Denied)
	}
	if !e.Last.IsZero() {
		text += fmt.Sprintf(", last %s ago", age(e.Last))
	}
	return text
}
