package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/policy/lint"
)

func (a *app) policyLint() *cobra.Command {
	var paths []string
	var used bool
	idle := 30 * 24 * time.Hour
	failOn := lint.Warning.String()
	cmd := &cobra.Command{
		Use:   "lint -f FILE | --used",
		Short: "Read policies without a daemon and name every mistake, and what is most likely one",
		Long: `Read policies without a daemon and name every mistake with its line, and everything that is written and
most likely not meant: rules that never match or never decide, selectors that select nobody, ports and
names that nobody has, peers that are wider than needed, forgotten DNS.

-f names policies and, as another file, the inventory that they are for (Namespace, Pod, Service and Node
manifests, or what "bulkhead workloads -o json" prints). Without an inventory the checks that need one
are silent. --used asks the daemon which rules nothing has used for the time of --idle; without -f it
lints what is in force. A policy's annotation ` + lint.IgnoreAnnotation + `: CHECK,CHECK silences what is meant.

Exit codes: 0 nothing at or above --fail-on, 1 something, 2 wrong usage or a file that cannot be opened.`,
		Example: "  bulkhead policy lint -f policies/ -f cluster.yaml\n  bulkhead policy lint -f policies/ -o sarif > lint.sarif",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options := lint.Options{Now: time.Now(), Idle: idle}
			var held []api.Policy
			if used {
				var err error
				if held, err = a.client().Policies(cmd.Context()); err != nil {
					return err
				}
				options.Used = usedRules(held)
			} else if err := needFiles(cmd, paths); err != nil {
				return err
			}
			least, err := parseFailOn(failOn)
			if err != nil {
				return usage(cmd, "--fail-on %v", err)
			}
			found, policies, err := a.lint(paths, held, options)
			if err != nil {
				return err
			}
			if err := a.printFindings(found, policies); err != nil {
				return err
			}
			if worst, any := lint.Worst(found); any && worst >= least {
				return fmt.Errorf("policy lint: %s", countFindings(found))
			}
			return nil
		},
	}
	filesFlag(cmd, &paths)
	cmd.Flags().BoolVar(&used, "used", false, "ask the daemon which rules are used")
	cmd.Flags().DurationVar(&idle, "idle", idle, "with --used: how long a rule may be without use")
	cmd.Flags().StringVar(&failOn, "fail-on", failOn, "exit with 1 from this severity on: note, warning, error, or never")
	complete(cmd, "fail-on", "note", "warning", "error", "never")
	alsoPrints(cmd, "sarif")
	return cmd
}

// never is above every severity.
const never = lint.Error + 1

func parseFailOn(word string) (lint.Severity, error) {
	if word == "never" {
		return never, nil
	}
	s, err := lint.ParseSeverity(word)
	if err != nil {
		return 0, fmt.Errorf("%q: want note, warning, error or never", word)
	}
	return s, nil
}

// lint reads files and lints the policies in them. Mistakes of reading are findings too, and then the
// only ones. Without files what is held by the daemon is linted.
func (a *app) lint(paths []string, held []api.Policy, o lint.Options) (found []lint.Finding, policies int, err error) {
	if len(paths) == 0 {
		set, err := inForce(held)
		if err != nil {
			return nil, 0, err
		}
		return lint.Check(set, nil, o), set.Len(), nil
	}
	off, err := a.readOffline(paths)
	if err != nil {
		found := readingFindings(err)
		if found == nil {
			return nil, 0, err
		}
		return found, 0, nil
	}
	view := off.cluster.View()
	if len(view.Workloads) == 0 {
		view = nil
	}
	found = lint.Check(off.set, view, o)
	return found, off.set.Len() + len(off.set.Shadows()), nil
}

// atLine is how a message begins that has a place in a file.
var atLine = regexp.MustCompile(`^(.+?):\d+(:\d+)?: `)

// readingFindings makes findings of what was wrong with files; nil: something else was wrong.
func readingFindings(err error) []lint.Finding {
	var out []lint.Finding
	for _, text := range sentences(errors.Unwrap(err)) {
		m := atLine.FindStringSubmatch(text)
		if m == nil {
			if len(out) == 0 {
				return nil
			}
			out = append(out, lint.Syntax(out[0].File, errors.New(text)))
			continue
		}
		out = append(out, lint.Syntax(m[1], errors.New(text)))
	}
	return out
}

func (a *app) printFindings(found []lint.Finding, policies int) error {
	if found == nil {
		found = []lint.Finding{}
	}
	if a.output == "sarif" {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(lint.Report(found, version()))
	}
	return a.print(found, func() error {
		for _, f := range found {
			fmt.Fprintln(a.out, f)
		}
		if len(found) == 0 {
			fmt.Fprintf(a.out, "%s, all well\n", plural(policies, "policy", "policies"))
		}
		return nil
	})
}

// countFindings is "1 error, 2 warnings".
func countFindings(found []lint.Finding) string {
	var parts []string
	for _, s := range []lint.Severity{lint.Error, lint.Warning, lint.Note} {
		n := 0
		for _, f := range found {
			if f.Severity == s {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, plural(n, s.String(), s.String()+"s"))
		}
	}
	return strings.Join(slices.Clip(parts), ", ")
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
