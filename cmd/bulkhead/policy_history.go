package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
)

func (a *app) policyHistory() *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "history [GENERATION]",
		Short: "Changes of policies and modes: when, who, what; with a generation all that it changed",
		Args:  atMost(1, "one: GENERATION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				n, err := generation(cmd, args[0])
				if err != nil {
					return err
				}
				g, err := a.client().Generation(cmd.Context(), n)
				if err != nil {
					return err
				}
				return a.print(g, func() error { return a.printGeneration(g) })
			}
			list, err := a.client().History(cmd.Context(), limit)
			if err != nil {
				return err
			}
			return a.print(list, func() error {
				var rows [][]string
				for _, g := range list {
					rows = append(rows, []string{strconv.FormatUint(g.Number, 10), age(g.Time), g.Cause, strconv.Itoa(g.Created), strconv.Itoa(g.Changed),
						strconv.Itoa(g.Removed), strconv.Itoa(g.Modes), g.State, g.Who, g.Message})
				}
				return a.table("GENERATION AGE CAUSE CREATED CHANGED REMOVED MODES STATE WHO MESSAGE", rows)
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "only the newest N")
	return cmd
}

func (a *app) printGeneration(g api.Generation) error {
	fmt.Fprintf(a.out, "generation %d  %s by %s at %s\n", g.Number, g.Cause, g.Who, g.Time.Local().Format("2006-01-02 15:04:05"))
	if g.Message != "" {
		fmt.Fprintf(a.out, "message     %s\n", g.Message)
	}
	if g.State != "" {
		fmt.Fprintf(a.out, "state       %s\n", g.State)
	}
	for _, f := range g.Files {
		fmt.Fprintf(a.out, "file        %s\n", f)
	}
	for _, c := range g.Changes {
		if c.File == "" {
			fmt.Fprintf(a.out, "%s: %s\n", c.Name, c.What)
			continue
		}
		fmt.Fprintf(a.out, "%-10s  %s  (%s)\n", c.What, c.Name, c.File)
	}
	return nil
}

func generation(cmd *cobra.Command, text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, usage(cmd, "generation %q: want a number of bulkhead policy history", text)
	}
	return n, nil
}
