package main

import (
	"github.com/spf13/cobra"
)

func (a *app) cluster() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "The nodes that are of one mind: who is there, who lags, keys",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.clusterStatus(), a.clusterForget(), a.clusterLeave(), a.clusterKeys())
	return cmd
}
