package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
)

func (a *app) policyGet() *cobra.Command {
	var shadow, stats bool
	cmd := &cobra.Command{
		Use:               "get [NAME]",
		Short:             "Policies in force and shadows; with a name, the text of that one",
		Args:              atMost(1, "one: [KIND/][NAMESPACE/]NAME"),
		ValidArgsFunction: a.oneOf(a.policyNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := a.client().Policies(cmd.Context())
			if err != nil {
				return err
			}
			if shadow {
				all = onlyShadows(all)
			}
			force, clustered, err := a.whereInForce(cmd.Context(), all)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				p, err := findPolicy(all, args[0])
				if err != nil {
					return err
				}
				return a.print(p, func() error {
					if stats {
						return a.printStats([]api.Policy{p})
					}
					_, err := fmt.Fprint(a.out, p.YAML)
					return err
				})
			}
			return a.print(all, func() error {
				if stats {
					return a.printStats(all)
				}
				var rows [][]string
				for _, p := range all {
					row := []string{p.Kind, nameOf(p), p.Mode, strings.Join(p.Types, ","), strings.Join(p.Selects, ","),
						p.Source, until(p.Expires), age(p.Applied)}
					if clustered {
						row = append(row, nodesOf(p.Force))
					}
					rows = append(rows, row)
				}
				if !clustered {
					return a.table("KIND NAME MODE TYPES SELECTS SOURCE EXPIRES AGE", rows)
				}
				return errors.Join(a.table("KIND NAME MODE TYPES SELECTS SOURCE EXPIRES AGE NODES", rows), a.printForce(force))
			})
		},
	}
	cmd.Flags().BoolVar(&shadow, "shadow", false, "only shadows")
	cmd.Flags().BoolVar(&stats, "stats", false, "what each rule was used for on this node, and when last")
	return cmd
}

// until is how long a time is away, in the unit that fits; empty for none.
func until(t *time.Time) string {
	if t == nil {
		return ""
	}
	// age counts from t; the way there is as long as the way back.
	now := time.Now()
	return "in " + age(now.Add(now.Sub(*t)))
}

func onlyShadows(all []api.Policy) []api.Policy {
	return slices.DeleteFunc(all, func(p api.Policy) bool { return p.Mode != "shadow" })
}

// nameOf is "shop/cart", or the name alone of a cluster-wide policy.
func nameOf(p api.Policy) string { return strings.TrimPrefix(p.Namespace+"/"+p.Name, "/") }

// findPolicy finds [KIND/][NAMESPACE/]NAME. A bare name is looked for in every namespace and must
// be the only one. Where a policy in force has a shadow, the one in force is found.
func findPolicy(all []api.Policy, name string) (api.Policy, error) {
	parts := strings.Split(name, "/")
	var found []api.Policy
	for _, p := range all {
		full := strings.Split(p.Kind+"/"+nameOf(p), "/")
		if len(parts) > len(full) || !strings.EqualFold(name, strings.Join(full[len(full)-len(parts):], "/")) {
			continue
		}
		same := slices.IndexFunc(found, func(o api.Policy) bool { return o.Kind == p.Kind && o.Namespace == p.Namespace && o.Name == p.Name })
		switch {
		case same < 0:
			found = append(found, p)
		case found[same].Mode == "shadow":
			found[same] = p
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return api.Policy{}, fmt.Errorf("policy %s: not in force; bulkhead policy get lists those that are", name)
	}
	var names []string
	for _, p := range found {
		names = append(names, p.Kind+"/"+nameOf(p))
	}
	return api.Policy{}, fmt.Errorf("policy %s: could be %s; give KIND/NAMESPACE/NAME", name, strings.Join(names, " or "))
}
