package main

import (
	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
)

func (a *app) policyRollback() *cobra.Command {
	c := change{req: api.ApplyRequest{Do: api.DoRollback}, removals: true}
	cmd := &cobra.Command{
		Use:   "rollback [GENERATION]",
		Short: "Go back to the policies and modes of a generation, as a new one",
		Long: `Go back to the policies and modes that held after a generation, as a new generation. Generation 0 is
before all. Without a number the newest change is undone, or the one that waits for confirmation.

What files of the watched folder (policyDir) hold, only they change: where a rollback would have to,
it is refused and names them. With --keep-files the rest is rolled back.`,
		Args: atMost(1, "one: GENERATION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				n, err := generation(cmd, args[0])
				if err != nil {
					return err
				}
				c.req.Generation = &n
			}
			return a.run(cmd, &c)
		},
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&c.req.KeepFiles, "keep-files", false, "leave what files of policyDir hold as it is")
	return cmd
}

func (a *app) policyConfirm() *cobra.Command {
	return &cobra.Command{
		Use:   "confirm [GENERATION]",
		Short: "Keep a change that was applied with --confirm-within",
		Args:  atMost(1, "one: GENERATION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var n uint64
			if len(args) == 1 {
				var err error
				if n, err = generation(cmd, args[0]); err != nil {
					return err
				}
			}
			return a.confirmGeneration(cmd, n)
		},
	}
}
