package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
)

func (a *app) policyGet() *cobra.Command {
	return &cobra.Command{
		Use:               "get [NAME]",
		Short:             "Policies in force; with a name, the text of that one",
		Args:              atMost(1, "one: [KIND/][NAMESPACE/]NAME"),
		ValidArgsFunction: a.oneOf(a.policyNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := a.client().Policies(cmd.Context())
			if err != nil {
				return err
			}
			if len(args) == 1 {
				p, err := findPolicy(all, args[0])
				if err != nil {
					return err
				}
				return a.print(p, func() error {
					_, err := fmt.Fprint(a.out, p.YAML)
					return err
				})
			}
			return a.print(all, func() error {
				var rows [][]string
				for _, p := range all {
					rows = append(rows, []string{p.Kind, p.Namespace + "/" + p.Name, strings.Join(p.Types, ","), strings.Join(p.Selects, ","),
						p.Source, age(p.Applied)})
				}
				return a.table("KIND NAME TYPES SELECTS SOURCE AGE", rows)
			})
		},
	}
}

// findPolicy finds [KIND/][NAMESPACE/]NAME. A bare name is looked for in every namespace and must
// be the only one.
func findPolicy(all []api.Policy, name string) (api.Policy, error) {
	parts := strings.Split(name, "/")
	var found []api.Policy
	for _, p := range all {
		full := []string{p.Kind, p.Namespace, p.Name}
		if len(parts) <= len(full) && strings.EqualFold(name, strings.Join(full[len(full)-len(parts):], "/")) {
			found = append(found, p)
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
		names = append(names, p.Kind+"/"+p.Namespace+"/"+p.Name)
	}
	return api.Policy{}, fmt.Errorf("policy %s: could be %s; give KIND/NAMESPACE/NAME", name, strings.Join(names, " or "))
}
