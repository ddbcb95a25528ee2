package main

import (
	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
)

func (a *app) policyDiff() *cobra.Command {
	var paths []string
	var req api.ApplyRequest
	cmd := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "What applying these files would do: policies that change, seen edges that break or open",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
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
