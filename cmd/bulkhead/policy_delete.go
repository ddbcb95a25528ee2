package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
)

func (a *app) policyDelete() *cobra.Command {
	return &cobra.Command{
		Use:               "delete NAME...",
		Short:             "Take policies out of force; what only they isolated is open again",
		ValidArgsFunction: a.oneOf(a.policyNames),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(cmd, "%s: no policy named, want [KIND/][NAMESPACE/]NAME", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := a.client().Policies(cmd.Context())
			if err != nil {
				return err
			}
			var chosen []api.Policy // all names are resolved before the first goes
			for _, name := range args {
				p, err := findPolicy(all, name)
				if err != nil {
					return err
				}
				chosen = append(chosen, p)
			}
			removed := []string{}
			for _, p := range chosen {
				if err := a.client().DeletePolicy(cmd.Context(), p.Kind, p.Namespace, p.Name); err != nil {
					return fmt.Errorf("delete policy %s/%s: %w", p.Namespace, p.Name, err)
				}
				removed = append(removed, p.Kind+" "+p.Namespace+"/"+p.Name)
			}
			return a.print(map[string][]string{"removed": removed}, func() error {
				for _, name := range removed {
					fmt.Fprintf(a.out, "removed  %s\n", name)
				}
				return nil
			})
		},
	}
}
