package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
)

func (a *app) clusterForget() *cobra.Command {
	var undo, yes bool
	cmd := &cobra.Command{
		Use:   "forget NODE",
		Short: "Remove a node that is gone for good, on all nodes",
		Long: `Remove a node that is gone for good, on all nodes: what it told of its workloads is nobody's at once, and
with the key that it had it does not come back. A machine that was set up anew under the same name has
another key, and may join.

A node that is alive is refused: stop its bulkheadd first.`,
		Args: exactly(1, "one: NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !undo && !yes {
				if err := a.confirm(fmt.Sprintf("this removes node %s and all that it told", args[0])); err != nil {
					return err
				}
			}
			r, err := a.client().ClusterForget(cmd.Context(), api.ClusterForget{Node: args[0], Back: undo})
			if err != nil {
				return err
			}
			return a.print(r, func() error {
				what := "is forgotten"
				if undo {
					what = "may come back"
				}
				_, err := fmt.Fprintf(a.out, "node %s %s\n", args[0], what)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "let it come back")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}
