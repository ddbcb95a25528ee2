package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) rules() *cobra.Command {
	var guard bool
	cmd := &cobra.Command{
		Use:               "rules WORKLOAD",
		Short:             "The ruleset that a workload's namespace holds, addresses named",
		Args:              exactly(1, "WORKLOAD"),
		ValidArgsFunction: a.oneOf(a.workloadNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := a.client().Rules(cmd.Context(), args[0], guard)
			if err != nil {
				return err
			}
			return a.print(map[string]string{"workload": args[0], "rules": text}, func() error {
				_, err := fmt.Fprint(a.out, text)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&guard, "guard", false, "also the guard on the host's end of the veth")
	return cmd
}
