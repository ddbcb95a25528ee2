package main

import (
	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/policy/schema"
)

func (a *app) policySchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the native kind, for editors and other checks",
		Long: `Print the JSON Schema (draft-07) of bulkhead.dev/v1alpha1 Policy. An editor with yaml-language-server
completes and checks a file whose first line names it:

  # yaml-language-server: $schema=./` + schema.Name,
		Example: "  bulkhead policy schema > " + schema.Name,
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := a.out.Write(schema.Policy())
			return err
		},
	}
}
