package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/translate"
)

// converted is what `policy convert -o json` prints.
type converted struct {
	Policies []string         `json:"policies"` // YAML, one document each
	Lost     []translate.Loss `json:"lost"`
}

func (a *app) policyConvert() *cobra.Command {
	var paths []string
	var to string
	names := slices.Sorted(maps.Keys(translate.Targets))
	cmd := &cobra.Command{
		Use:   "convert -f FILE --to KIND",
		Short: "Write policies as another kind, and name what that kind cannot say",
		Long: `Write policies as another kind: native (bulkhead.dev/v1alpha1 Policy), networkpolicy
(networking.k8s.io/v1) or clusternetworkpolicy (policy.networking.k8s.io/v1alpha2, also from
AdminNetworkPolicy and BaselineAdminNetworkPolicy). The YAML goes to standard output; what is lost goes to
standard error, with file, line, field, the reason and the nearest thing that can be said.

Exit codes: 0 all of it means the same, 1 something was lost, 2 wrong usage or bad input.`,
		Example: "  bulkhead policy convert -f policies/ --to networkpolicy > networkpolicies.yaml",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needFiles(cmd, paths); err != nil {
				return err
			}
			kind, ok := translate.Targets[to]
			if !ok {
				return usage(cmd, "--to %q: want one of %s", to, strings.Join(names, ", "))
			}
			off, err := a.readOffline(paths)
			if err != nil {
				return err
			}
			var out []policy.Policy
			lost := []translate.Loss{}
			for _, p := range slices.Concat(off.set.Policies(), off.set.Shadows()) {
				r := translate.Convert(p, kind)
				out = append(out, r.Policies...)
				lost = append(lost, r.Losses...)
			}
			if err := a.printConverted(out, lost); err != nil {
				return err
			}
			if len(lost) > 0 {
				return fmt.Errorf("policy convert: %s could not be said by a %s", plural(len(lost), "thing", "things"), kind)
			}
			return nil
		},
	}
	filesFlag(cmd, &paths)
	cmd.Flags().StringVar(&to, "to", "", strings.Join(names, ", "))
	complete(cmd, "to", names...)
	return cmd
}

func (a *app) printConverted(out []policy.Policy, lost []translate.Loss) error {
	c := converted{Policies: []string{}, Lost: lost}
	for _, p := range out {
		text, err := policy.Marshal(p)
		if err != nil {
			return err
		}
		c.Policies = append(c.Policies, string(text))
	}
	if a.output != "table" {
		return a.print(c, nil)
	}
	for _, l := range lost {
		fmt.Fprintln(a.err, l)
	}
	_, err := fmt.Fprint(a.out, strings.Join(c.Policies, "---\n"))
	return err
}
