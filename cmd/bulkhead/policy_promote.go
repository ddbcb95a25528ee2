package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
)

func (a *app) policyPromote() *cobra.Command {
	c := change{req: api.ApplyRequest{Do: api.DoPromote}, removals: false}
	cmd := &cobra.Command{
		Use:   "promote NAME...",
		Short: "Put shadows in force when what they have seen speaks for it",
		Long: `Put shadows in force when what they have seen speaks for it.

That is: enough connections would pass (promoteConnections of the daemon's configuration, 1000 unless
set), nothing that was seen would be denied, it has been there for long enough (promoteAge, 1 hour),
and the selected services were seen in both phases of their life: each has started since, and
connections were seen of workloads that ran for more than a minute. Otherwise it says what is missing.

With --after it is left a shadow, and takes force by itself once that is so with N connections.
With --now it takes force whatever was seen.`,
		ValidArgsFunction: a.oneOf(a.shadowNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 && !strings.Contains(args[0], "/") && strings.HasSuffix(strings.ToLower(args[0]), "policy") {
				args = []string{args[0] + "/" + args[1]}
			}
			if len(args) == 0 {
				return usage(cmd, "%s: no shadow named, want [KIND/][NAMESPACE/]NAME", cmd.CommandPath())
			}
			if c.req.Now && c.req.After > 0 {
				return usage(cmd, "--after waits for evidence and --now does not; give one of them")
			}
			var err error
			if c.req.Names, err = a.named(cmd, args, true); err != nil {
				return err
			}
			if c.req.After > 0 && !c.dryRun {
				return a.arm(cmd, c.req)
			}
			return a.run(cmd, &c)
		},
	}
	c.flags(cmd)
	cmd.Flags().Uint64Var(&c.req.After, "after", 0, "take force by itself once N connections would pass and none would be denied")
	cmd.Flags().BoolVar(&c.req.Now, "now", false, "whatever was seen")
	return cmd
}

// arm leaves shadows what they are until the evidence is there.
func (a *app) arm(cmd *cobra.Command, req api.ApplyRequest) error {
	r, err := a.client().Apply(cmd.Context(), req)
	if err != nil {
		return err
	}
	return a.print(r, func() error {
		for _, n := range req.Names {
			name := strings.TrimPrefix(n.Namespace+"/"+n.Name, "/")
			fmt.Fprintf(a.out, "armed    %s %s: takes force once %d connections would pass and none would be denied\n", n.Kind, name, req.After)
		}
		for _, m := range r.Missing {
			fmt.Fprintf(a.out, "missing  %s\n", m)
		}
		return nil
	})
}
