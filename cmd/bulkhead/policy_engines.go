package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/policy/translate"
)

// engineReport is what is known of one engine and the policies asked about.
type engineReport struct {
	Engine  string              `json:"engine"`
	Title   string              `json:"title"`
	Trouble []translate.Verdict `json:"trouble"`           // what it ignores, refuses or does in part
	Unknown []translate.Field   `json:"unknown,omitempty"` // used, and nothing is known
}

func (a *app) policyEngines() *cobra.Command {
	var paths, only []string
	var names []string
	for _, e := range translate.Engines() {
		names = append(names, e.Name)
	}
	cmd := &cobra.Command{
		Use:   "engines -f FILE",
		Short: "What other engines are known to ignore or refuse of the fields that policies use",
		Long: `What other engines are known to ignore, refuse or do in part of the fields that these policies use, each
with its source. A field of which nothing is known is listed as unknown: that is no promise.

Exit codes: 0, or with --engine 1 when one of these engines ignores or refuses a field; 2 wrong usage or
bad input.`,
		Example: "  bulkhead policy engines -f policies/ --engine cilium,calico",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needFiles(cmd, paths); err != nil {
				return err
			}
			asked := names
			if len(only) > 0 {
				asked = only
			}
			for _, name := range asked {
				if !slices.Contains(names, name) {
					return usage(cmd, "--engine %q: want one of %s", name, strings.Join(names, ", "))
				}
			}
			off, err := a.readOffline(paths)
			if err != nil {
				return err
			}
			var uses []translate.Use
			for _, p := range slices.Concat(off.set.Policies(), off.set.Shadows()) {
				uses = append(uses, translate.Uses(p)...)
			}
			reports, bad := askEngines(asked, uses)
			if err := a.print(reports, func() error { return a.printEngines(reports) }); err != nil {
				return err
			}
			if bad > 0 && len(only) > 0 {
				return fmt.Errorf("policy engines: %s ignored or refused", plural(bad, "use of a field is", "uses of fields are"))
			}
			return nil
		},
	}
	filesFlag(cmd, &paths)
	cmd.Flags().StringSliceVar(&only, "engine", nil, "ask about these only: "+strings.Join(names, ", "))
	complete(cmd, "engine", names...)
	return cmd
}

// askEngines asks each engine, and counts what is ignored or refused.
func askEngines(names []string, uses []translate.Use) (reports []engineReport, bad int) {
	for _, name := range names {
		e, _ := translate.FindEngine(name)
		r := engineReport{Engine: e.Name, Title: e.Title, Trouble: []translate.Verdict{}}
		trouble, unknown := e.Ask(uses)
		r.Trouble = append(r.Trouble, trouble...)
		r.Unknown = unknown
		for _, v := range trouble {
			if v.State == translate.Ignored || v.State == translate.Refused {
				bad++
			}
		}
		reports = append(reports, r)
	}
	return reports, bad
}

func (a *app) printEngines(reports []engineReport) error {
	for i, r := range reports {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		fmt.Fprintf(a.out, "%s (%s)\n", r.Title, r.Engine)
		for _, v := range r.Trouble {
			state := string(v.State)
			if vs := v.Versions(); vs != "" {
				state += ", " + vs
			}
			at := v.Place
			if at == "" {
				at = v.Use.Policy
			}
			fmt.Fprintf(a.out, "  %s: %s: %s: %s\n    as of %s: %s <%s>\n", at, v.Field, state, v.Note, v.AsOf, v.Title, v.Source)
		}
		switch {
		case len(r.Unknown) > 0:
			names := make([]string, len(r.Unknown))
			for j, f := range r.Unknown {
				names[j] = string(f)
			}
			fmt.Fprintf(a.out, "  unknown: %s\n", strings.Join(names, ", "))
		case len(r.Trouble) == 0:
			fmt.Fprintln(a.out, "  nothing is known to be ignored or refused")
		}
	}
	return nil
}
