package main

import (
	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

func (a *app) policyApply() *cobra.Command {
	var paths []string
	c := change{removals: true}
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Put policies in force: all of them, or none",
		Long: `Put policies in force: all of them, or none.

Where seen edges would break, or policies would go, it shows them and asks first.

With --confirm-within it is done at once, and undone by itself after that span unless somebody
confirms it, here or with: bulkhead policy confirm. A change that cuts you off undoes itself.

With --shadow nothing is denied: the policies are judged beside what is in force, and
bulkhead policy shadow tells what they would deny.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needFiles(cmd, paths); err != nil {
				return err
			}
			if err := checkMode(cmd, c.req.Mode); err != nil {
				return err
			}
			if c.req.Shadow && c.req.Mode != "" {
				return usage(cmd, "--shadow changes no mode; leave --mode away")
			}
			var err error
			if c.req.Files, err = a.readFiles(paths); err != nil {
				return err
			}
			return a.run(cmd, &c)
		},
	}
	filesFlag(cmd, &paths)
	modeFlag(cmd, &c.req.Mode)
	c.flags(cmd)
	cmd.Flags().BoolVar(&c.req.Prune, "prune", false, "remove policies that were applied before and are not in the files")
	cmd.Flags().BoolVar(&c.req.Shadow, "shadow", false, "as shadows: judge and tell, deny nothing")
	return cmd
}

// modeFlag adds the --mode that apply and diff share.
func modeFlag(cmd *cobra.Command, mode *string) {
	cmd.Flags().StringVar(mode, "mode", "", "set the services that the files select to alert or enforce, in the same step")
	complete(cmd, "mode", "learn", "alert", "enforce")
}

func checkMode(cmd *cobra.Command, mode string) error {
	if mode == "" {
		return nil
	}
	if _, err := policy.ParseMode(mode); err != nil {
		return usage(cmd, "%v", err)
	}
	return nil
}
