package suite

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// What JUnit readers of CI systems agree on: suites of cases with failures and errors.
type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Errors   int          `xml:"errors,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Class   string        `xml:"classname,attr"`
	File    string        `xml:"file,attr"`
	Line    string        `xml:"line,attr,omitempty"`
	Failure *junitProblem `xml:"failure"`
	Error   *junitProblem `xml:"error"`
}

type junitProblem struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Text    string `xml:",chardata"`
}

// WriteJUnit writes results as JUnit XML: a suite per file, a case per test; a test that could not be
// run is an error.
func WriteJUnit(w io.Writer, files []File, results [][]Result) error {
	all := junitSuites{}
	for i, f := range files {
		s := junitSuite{Name: plain(f.Name)}
		for j := range results[i] {
			c := caseOf(f.Name, &results[i][j])
			s.Tests++
			if c.Failure != nil {
				s.Failures++
			}
			if c.Error != nil {
				s.Errors++
			}
			s.Cases = append(s.Cases, c)
		}
		all.Tests, all.Failures, all.Errors = all.Tests+s.Tests, all.Failures+s.Failures, all.Errors+s.Errors
		all.Suites = append(all.Suites, s)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func caseOf(suite string, r *Result) junitCase {
	c := junitCase{Name: plain(r.String()), Class: plain(suite)}
	c.File, c.Line, _ = strings.Cut(r.Place, ":")
	c.Line, _, _ = strings.Cut(c.Line, ":")
	switch {
	case r.Err != nil:
		c.Error = &junitProblem{Message: plain(r.Err.Error()), Type: "error", Text: plain(r.Place)}
	case !r.OK():
		c.Failure = &junitProblem{Message: plain(r.Headline()), Type: "verdict", Text: plain(strings.Join(r.Lines(), "\n"))}
	}
	return c
}

// plain leaves out what XML 1.0 cannot hold.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 && r != '\n' && r != '\t' || r == 0xfffe || r == 0xffff {
			return -1
		}
		return r
	}, s)
}

// Headline says in a sentence what is wrong with a test that failed.
func (r *Result) Headline() string {
	if r.Err != nil {
		return r.Err.Error()
	}
	got := "deny"
	if len(r.Failures) > 0 {
		got = r.Failures[0].Decision.Verdict.String()
	}
	text := fmt.Sprintf("want %s, got %s", r.Expect, got)
	if r.Tried > 1 {
		text += fmt.Sprintf(" for %d of %d connections", r.Failed, r.Tried)
	}
	if r.Because != "" {
		text += "; " + r.Because
	}
	return text
}

// Lines tells of each failure who it was, and the chain of reasons.
func (r *Result) Lines() []string {
	var out []string
	for _, f := range r.Failures {
		out = append(out, fmt.Sprintf("%s (%s) → %s (%s) %s: %s", f.Client, f.Addrs[0], f.Server, f.Addrs[1], f.Port, f.Decision.Verdict))
		for _, reason := range f.Decision.Reasons() {
			out = append(out, "  "+reason)
		}
	}
	if more := r.Failed - len(r.Failures); more > 0 {
		out = append(out, fmt.Sprintf("and %d more connections", more))
	}
	return out
}
