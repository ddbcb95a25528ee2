package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

func down(w *which) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Remove a lab: processes, namespaces, files",
		Long: `Remove a lab: processes, namespaces, files. Works on one that is half made or half gone as well, and
twice.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, err := w.existing()
			if errors.Is(err, lab.ErrNoLab) {
				fmt.Fprintln(cmd.ErrOrStderr(), "no lab is up")
				return nil
			}
			if err != nil {
				return err
			}
			return lab.Down(name)
		},
	}
}
