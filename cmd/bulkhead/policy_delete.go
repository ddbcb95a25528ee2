package main

import (
	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
)

func (a *app) policyDelete() *cobra.Command {
	var paths []string
	c := change{req: api.ApplyRequest{Do: api.DoDelete}}
	cmd := &cobra.Command{
		Use:   "delete NAME... | -f FILE",
		Short: "Take policies out of force, all named or none; what only they isolated is open again",
		Long: `Take policies out of force: all that are named, or that the files hold, or none.

A policy goes with its shadow; with --shadow only the shadow goes. Where seen edges would break it
shows them and asks first.`,
		ValidArgsFunction: a.oneOf(a.policyNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && len(paths) == 0 {
				return usage(cmd, "%s: no policy named, want [KIND/][NAMESPACE/]NAME or -f FILE", cmd.CommandPath())
			}
			var err error
			if len(args) > 0 {
				if c.req.Names, err = a.named(cmd, args, c.req.Shadow); err != nil {
					return err
				}
			}
			if len(paths) > 0 {
				if c.req.Files, err = a.readFiles(paths); err != nil {
					return err
				}
			}
			return a.run(cmd, &c)
		},
	}
	filesFlag(cmd, &paths)
	c.flags(cmd)
	cmd.Flags().BoolVar(&c.req.Shadow, "shadow", false, "only shadows")
	return cmd
}

// named resolves what a person typed to whole names, all before anything is done.
func (a *app) named(cmd *cobra.Command, args []string, shadows bool) ([]api.PolicyName, error) {
	all, err := a.client().Policies(cmd.Context())
	if err != nil {
		return nil, err
	}
	if shadows {
		all = onlyShadows(all)
	}
	var names []api.PolicyName
	for _, arg := range args {
		p, err := findPolicy(all, arg)
		if err != nil {
			return nil, err
		}
		names = append(names, api.PolicyName{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name})
	}
	return names, nil
}
