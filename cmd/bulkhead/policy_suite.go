package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/policy/suite"
)

// testedFile is what `policy test` says of one file of tests.
type testedFile struct {
	File   string       `json:"file"`
	Passed int          `json:"passed"`
	Failed []failedTest `json:"failed"`
}

type failedTest struct {
	Test    string   `json:"test"`
	Place   string   `json:"place"` // file:line:column
	Message string   `json:"message"`
	Error   bool     `json:"error,omitempty"`   // it could not be run
	Reasons []string `json:"reasons,omitempty"` // of each connection that got another verdict
}

func (a *app) policyTest() *cobra.Command {
	var paths []string
	var junit string
	cmd := &cobra.Command{
		Use:   "test -f FILE",
		Short: "Hold policies against files of tests, without a daemon",
		Long: `Hold policies against files of tests, without a daemon.

-f names policies, the inventory (see "bulkhead policy verdicts") and tests, in any mixture of files:

  apiVersion: bulkhead.dev/v1alpha1
  kind: PolicyTest
  metadata: {name: shop}
  tests:
  - name: only web reaches the cart
    client: shop/web          # workload, service, namespace/key=value, address, world, node, or a list
    server: shop/cart
    port: TCP/7070            # a number or a container port's name, or a list; ICMP
    expect: allow             # or deny
    because: carts are filled from the web pages

A test holds when every connection that it stands for gets the verdict: all workloads that the names
mean, in all address families that both ends have. Exits with 1 when one fails.`,
		Example: "  bulkhead policy test -f policies/ -f cluster.yaml -f tests/ --junit report.xml",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needFiles(cmd, paths); err != nil {
				return err
			}
			off, err := a.readOffline(paths)
			if err != nil {
				return err
			}
			files := off.tests
			if len(files) == 0 {
				return badInput(fmt.Errorf("policy test: the files hold no tests; want a document of kind %s", suite.Kind))
			}
			set := off.current()
			results := make([][]suite.Result, len(files))
			for i := range files {
				results[i] = files[i].Run(off.cluster, set)
			}
			if junit != "" {
				if err := writeJUnit(junit, files, results); err != nil {
					return err
				}
			}
			return a.printTested(files, results)
		},
	}
	filesFlag(cmd, &paths)
	cmd.Flags().StringVar(&junit, "junit", "", "write the results as JUnit XML to this file, too")
	return cmd
}

// writeJUnit replaces the report only by a whole one.
func writeJUnit(name string, files []suite.File, results [][]suite.Result) error {
	var b bytes.Buffer
	if err := suite.WriteJUnit(&b, files, results); err != nil {
		return fmt.Errorf("junit: %w", err)
	}
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("junit: %w", err)
	}
	return nil
}

func (a *app) printTested(files []suite.File, results [][]suite.Result) error {
	var out []testedFile
	tests, failed := 0, 0
	for i, f := range files {
		t := testedFile{File: f.Name, Failed: []failedTest{}}
		for j := range results[i] {
			r := &results[i][j]
			if tests++; r.OK() {
				t.Passed++
				continue
			}
			failed++
			t.Failed = append(t.Failed, failedTest{Test: r.String(), Place: r.Place, Message: r.Headline(), Error: r.Err != nil, Reasons: r.Lines()})
		}
		out = append(out, t)
	}
	err := a.print(out, func() error {
		for _, f := range out {
			for _, t := range f.Failed {
				fmt.Fprintf(a.out, "%s  %s\n    %s: %s\n", a.word("FAIL"), t.Test, t.Place, t.Message)
				for _, line := range t.Reasons {
					fmt.Fprintf(a.out, "    %s\n", line)
				}
			}
			fmt.Fprintf(a.out, "%s: %d passed, %d failed\n", f.File, f.Passed, len(f.Failed))
		}
		return nil
	})
	if err == nil && failed > 0 {
		err = &codeError{exitError, errors.New("policy test: " + plural(failed, "test", "tests") + fmt.Sprintf(" of %d failed", tests))}
	}
	return err
}
