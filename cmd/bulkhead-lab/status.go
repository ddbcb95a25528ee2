package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
)

func status(w *which) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "What the lab is made of and what of it runs",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := w.open()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if output == "json" {
				enc := json.NewEncoder(out)
				enc.SetIndent("", "  ")
				return enc.Encode(l.State)
			}
			if output != "table" {
				return fmt.Errorf("output %q: want table or json", output)
			}
			if err := printLab(out, l); err != nil {
				return err
			}
			fmt.Fprintln(out)
			for _, line := range l.Health(cmd.Context()) {
				fmt.Fprintln(out, line)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}
