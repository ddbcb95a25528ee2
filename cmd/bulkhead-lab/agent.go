package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// agent is what `up` starts for the lab; nobody else needs it.
func agent(w *which) *cobra.Command {
	return &cobra.Command{
		Use:    "agent",
		Short:  "The lab's process of listeners and probes",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if w.dir == "" {
				return errors.New("agent: want --dir")
			}
			return lab.RunAgent(cmd.Context(), w.dir)
		},
	}
}
