package main

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) workloads() *cobra.Command {
	var service string
	cmd := &cobra.Command{
		Use:   "workloads",
		Short: "Containers known: service, mode, addresses, what guards them",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := a.client().Workloads(cmd.Context())
			if err != nil {
				return err
			}
			kept := all[:0]
			for _, w := range all {
				if service == "" || w.Service == qualified(service) {
					kept = append(kept, w)
				}
			}
			return a.print(kept, func() error {
				var rows [][]string
				for _, w := range kept {
					guard := "no"
					if w.Guarded {
						guard = "yes"
					}
					if !w.Local {
						guard = "remote"
					}
					rows = append(rows, []string{w.Namespace + "/" + w.Name, w.Service, w.Mode, strings.Join(w.Isolated, ","),
						strconv.Itoa(w.Entries), guard, strings.Join(w.Addrs, ","), age(w.Since), w.Error})
				}
				return a.table("WORKLOAD SERVICE MODE ISOLATED ENTRIES GUARD ADDRESSES AGE ERROR", rows)
			})
		},
	}
	cmd.Flags().StringVar(&service, "service", "", "only workloads of this service")
	a.completeServices(cmd, "service")
	return cmd
}

// qualified gives namespace/name; a bare name is one of the namespace default.
func qualified(service string) string {
	if strings.ContainsRune(service, '/') || service == "*" {
		return service
	}
	return "default/" + service
}
