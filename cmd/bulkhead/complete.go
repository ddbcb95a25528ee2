package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

// completeDeadline is how long the Tab key may wait for the daemon.
const completeDeadline = 300 * time.Millisecond

// complete offers fixed words for a flag. A flag that does not exist is a mistake of this program.
func complete(cmd *cobra.Command, flag string, words ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err)
	}
}

// completeServices offers the daemon's services for a flag.
func (a *app) completeServices(cmd *cobra.Command, flag string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, a.oneOf(a.serviceNames)); err != nil {
		panic(err)
	}
}

// oneOf makes a completion of names that the daemon gives. No daemon, no names, no complaint.
func (a *app) oneOf(names func(context.Context) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		ctx, cancel := context.WithTimeout(ctx, completeDeadline)
		defer cancel()
		return names(ctx), cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) serviceNames(ctx context.Context) []string {
	modes, err := a.client().Modes(ctx)
	if err != nil {
		return nil
	}
	var names []string
	for _, m := range modes {
		if m.Service != "*" {
			names = append(names, m.Service)
		}
	}
	return names
}

func (a *app) workloadNames(ctx context.Context) []string {
	all, err := a.client().Workloads(ctx)
	if err != nil {
		return nil
	}
	var names []string
	for _, w := range all {
		if w.Local {
			names = append(names, w.Namespace+"/"+w.Name)
		}
	}
	return names
}

func (a *app) policyNames(ctx context.Context) []string {
	all, err := a.client().Policies(ctx)
	if err != nil {
		return nil
	}
	var names []string
	for _, p := range all {
		names = append(names, p.Namespace+"/"+p.Name)
	}
	return names
}

// twoEnds completes a client and a server.
func (a *app) twoEnds(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) < 2 {
		return a.oneOf(a.serviceNames)(cmd, args, typed)
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}
