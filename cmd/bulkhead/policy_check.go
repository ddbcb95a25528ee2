package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// checkedFile is what `policy check` says of one file.
type checkedFile struct {
	File     string   `json:"file"`
	Policies []string `json:"policies"`
	Errors   []string `json:"errors,omitempty"` // file:line:column: what, and what was expected
}

func (a *app) policyCheck() *cobra.Command {
	var paths []string
	cmd := &cobra.Command{
		Use:   "check -f FILE",
		Short: "Read policies without a daemon and name every mistake with its line",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needFiles(cmd, paths); err != nil {
				return err
			}
			files, err := a.readFiles(paths)
			if err != nil {
				return err
			}
			var checked []checkedFile
			bad := 0
			for _, f := range files {
				c := checkedFile{File: f.Name, Policies: []string{}}
				parsed, err := policy.Parse(f.Name, []byte(f.Data))
				for _, p := range parsed {
					c.Policies = append(c.Policies, p.Kind+" "+p.Namespace+"/"+p.Name)
				}
				c.Errors = sentences(err)
				bad += len(c.Errors)
				checked = append(checked, c)
			}
			if err := a.print(checked, func() error { return a.printChecked(checked) }); err != nil {
				return err
			}
			if bad > 0 {
				return fmt.Errorf("policy check: %s; nothing of such a file would be applied", plural(bad, "mistake", "mistakes"))
			}
			return nil
		},
	}
	filesFlag(cmd, &paths)
	return cmd
}

func (a *app) printChecked(checked []checkedFile) error {
	for _, c := range checked {
		for _, e := range c.Errors {
			fmt.Fprintln(a.err, e)
		}
		if len(c.Errors) == 0 {
			fmt.Fprintf(a.out, "%s: %s, all well\n", c.File, plural(len(c.Policies), "policy", "policies"))
		}
	}
	return nil
}

// sentences takes a joined error apart.
func sentences(err error) []string {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []string{err.Error()}
	}
	var all []string
	for _, e := range joined.Unwrap() {
		all = append(all, sentences(e)...)
	}
	return all
}
