package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
)

func (a *app) policyShadow() *cobra.Command {
	return &cobra.Command{
		Use:               "shadow [NAME]",
		Short:             "What shadows have seen: connections that would pass, be denied, or be allowed anew",
		Args:              atMost(1, "one: [KIND/][NAMESPACE/]NAME"),
		ValidArgsFunction: a.oneOf(a.shadowNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := a.client().Policies(cmd.Context())
			if err != nil {
				return err
			}
			all = onlyShadows(all)
			if len(args) == 1 {
				p, err := findPolicy(all, args[0])
				if err != nil {
					return fmt.Errorf("policy %s: no shadow of it; bulkhead policy shadow lists those that are", args[0])
				}
				return a.print(p.Shadow, func() error { return a.printShadow(p) })
			}
			return a.print(all, func() error { return a.listShadows(all) })
		},
	}
}

func (a *app) listShadows(all []api.Policy) error {
	var rows [][]string
	for _, p := range all {
		s := p.Shadow
		if s == nil {
			s = &api.Shadow{}
		}
		after := ""
		if s.After > 0 {
			after = strconv.FormatUint(s.After, 10)
		}
		rows = append(rows, []string{p.Kind, nameOf(p), strconv.FormatUint(s.Passed, 10), strconv.FormatUint(s.Denied, 10),
			strconv.FormatUint(s.Opened, 10), after, age(s.Since)})
	}
	return a.table("KIND NAME PASS DENY OPEN AFTER AGE", rows)
}

func (a *app) printShadow(p api.Policy) error {
	s := p.Shadow
	if s == nil {
		return fmt.Errorf("policy %s: nothing is kept of what it has seen yet; ask again", nameOf(p))
	}
	fmt.Fprintf(a.out, "%s %s, a shadow for %s\n", p.Kind, nameOf(p), age(s.Since))
	for _, row := range []struct {
		n    uint64
		what string
	}{{s.Passed, "would pass"}, {s.Denied, "would be denied"}, {s.Opened, "are denied now and would pass"}, {s.Refused, "are denied now and would be"}} {
		word := "connections"
		if row.n == 1 {
			word = "connection"
		}
		fmt.Fprintf(a.out, "%8d %s %s\n", row.n, word, row.what)
	}
	for _, e := range s.Edges {
		fmt.Fprintf(a.out, "would %s  %s → %s %s  x%d, first %s ago, last %s ago: %s\n", a.word(e.Verdict), e.Client, e.Server,
			portOf(e.Protocol, e.Port), e.Count, age(e.First), age(e.Last), e.Reason)
		for _, x := range e.Examples {
			fmt.Fprintf(a.out, "             %s\n", x)
		}
	}
	if s.Beyond > 0 {
		fmt.Fprintf(a.out, "%d more found no room to be kept apart\n", s.Beyond)
	}
	for _, m := range s.Missing {
		fmt.Fprintf(a.out, "missing      %s\n", m)
	}
	verdict := "bulkhead policy promote puts it in force"
	if len(s.Missing) > 0 {
		verdict = "not ready for bulkhead policy promote"
	}
	if s.After > 0 {
		verdict += fmt.Sprintf("; it takes force by itself after %d connections", s.After)
	}
	_, err := fmt.Fprintln(a.out, verdict)
	return err
}

func (a *app) shadowNames(ctx context.Context) []string {
	all, err := a.client().Policies(ctx)
	if err != nil {
		return nil
	}
	var names []string
	for _, p := range onlyShadows(all) {
		names = append(names, nameOf(p))
	}
	return names
}
