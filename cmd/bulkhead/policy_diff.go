package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/reach"
)

func (a *app) policyDiff() *cobra.Command {
	var paths []string
	var req api.ApplyRequest
	cmd := &cobra.Command{
		Use:   "diff [FROM TO] -f FILE",
		Short: "What a change of policies does to who may reach whom",
		Long: `What a change of policies does to who may reach whom.

With FROM and TO, files or folders of policies, no daemon is asked: the difference is computed for all
ports and addresses over an inventory, which -f names (see "bulkhead policy verdicts"; policies among
these files hold on both sides). Rows are services, the world, blocks of addresses that the policies
write, and nodes. A list of files is separated by commas. Exits with 1 where they differ.

Without them the daemon is asked what applying the files would do to the connections that it saw.`,
		Example: "  bulkhead policy diff main/policies/ policies/ -f cluster.yaml\n  bulkhead policy diff -f policies/",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || len(args) == 2 {
				return nil
			}
			return usage(cmd, "%s: %d arguments given, want FROM and TO, or none", cmd.CommandPath(), len(args))
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				if req.Prune || req.Mode != "" {
					return usage(cmd, "--prune and --mode are for what the daemon is asked; leave FROM and TO out")
				}
				return a.diffReach(args[0], args[1], paths)
			}
			if err := needFiles(cmd, paths); err != nil {
				return err
			}
			files, err := a.readFiles(paths)
			if err != nil {
				return err
			}
			req.Files = files
			p, err := a.client().Preview(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.print(p, func() error { return a.printPreview(p) })
		},
	}
	filesFlag(cmd, &paths)
	cmd.Flags().BoolVar(&req.Prune, "prune", false, "as if policies that were applied before and are not in the files went")
	modeFlag(cmd, &req.Mode)
	return cmd
}

// reachDiff is what `policy diff FROM TO` prints.
type reachDiff struct {
	Changes []reachChange `json:"changes"`
	Cut     bool          `json:"cut,omitempty"` // there are more
}

type reachChange struct {
	Client  string   `json:"client"`
	Server  string   `json:"server"`
	Verdict string   `json:"verdict"` // newly allow or deny
	What    string   `json:"what"`    // protocols and ports
	Family  string   `json:"family,omitempty"`
	Rule    string   `json:"rule,omitempty"` // that makes the difference; none: the default does
	Reason  string   `json:"reason"`
	Pairs   int      `json:"pairs"` // of workloads
	Of      int      `json:"of"`
	Example []string `json:"example,omitempty"` // client, server and port of one connection
}

func (a *app) diffReach(from, to string, paths []string) error {
	common, err := a.readFilesOf(paths)
	if err != nil {
		return err
	}
	var off [2]*offline
	for i, side := range []string{from, to} {
		files, err := a.readFilesOf(strings.Split(side, ","))
		if err != nil {
			return err
		}
		if off[i], err = parseOffline(slices.Concat(common, files)); err != nil {
			return err
		}
	}
	// Both are asked of one world: the new one, with what only the old one knows left aside.
	world := off[1]
	if len(world.cluster.View().Workloads) == 0 {
		return badInput(errors.New("policy diff: the files hold no workloads to compare on; name an inventory with -f"))
	}
	d := reach.Diff(world.cluster.View(), off[0].current(), off[1].current(), func(set *policy.Set, q policy.Connection) policy.Decision {
		return world.cluster.Evaluate(set, q)
	})
	out := reachDiff{Changes: []reachChange{}, Cut: d.Cut}
	for _, c := range d.Changes {
		out.Changes = append(out.Changes, newReachChange(&c))
	}
	if err := a.print(out, func() error { return a.printReach(out) }); err != nil {
		return err
	}
	if len(out.Changes) > 0 {
		return &codeError{code: exitError}
	}
	return nil
}

func newReachChange(c *reach.Change) reachChange {
	out := reachChange{Client: c.Client, Server: c.Server, Verdict: "deny", What: c.What, Family: c.Family, Rule: c.Rule, Reason: c.Reason, Pairs: c.Pairs, Of: c.Of}
	if c.Allowed {
		out.Verdict = "allow"
	}
	if e := c.Example; e.Client.Addr.IsValid() {
		out.Example = []string{endText(e.Client), endText(e.Server), portOf(e.Protocol.String(), e.Port)}
	}
	return out
}

// maxRows is how many changes are shown to a person.
const maxRows = 500

func (a *app) printReach(d reachDiff) error {
	allowed := 0
	for i, c := range d.Changes {
		verb := "- deny "
		if c.Verdict == "allow" {
			verb = "+ allow"
			allowed++
		}
		if i >= maxRows {
			continue
		}
		fmt.Fprintf(a.out, "%s  %s → %s  %s", verb, c.Client, c.Server, c.What)
		if c.Family != "" {
			fmt.Fprintf(a.out, " (%s)", c.Family)
		}
		if c.Pairs < c.Of {
			fmt.Fprintf(a.out, " (%d of %d", c.Pairs, c.Of)
			if len(c.Example) > 0 {
				fmt.Fprintf(a.out, ", such as %s → %s", c.Example[0], c.Example[1])
			}
			fmt.Fprint(a.out, ")")
		}
		fmt.Fprintf(a.out, ": %s\n", c.Reason)
	}
	if len(d.Changes) > maxRows {
		fmt.Fprintf(a.out, "and %d more; -o json tells all\n", len(d.Changes)-maxRows)
	}
	_, err := fmt.Fprintf(a.out, "%d newly denied, %d newly allowed\n", len(d.Changes)-allowed, allowed)
	return err
}

func endText(p identity.Peer) string {
	if p.Workload != nil {
		return p.Workload.Namespace + "/" + p.Workload.Name
	}
	return p.Addr.String()
}
