package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/bulkhead-firewall/bulkhead/examples/shop"
)

// tally is what the whole shop did so far.
type tally struct {
	calls, failures uint64
	edges           int    // with at least one call
	lastError       string // of any failure
}

// count adds up what all players report.
func (s *stage) count() (tally, error) {
	var t tally
	files, err := filepath.Glob(filepath.Join(s.reports, "*.json"))
	if err != nil {
		return t, err
	}
	for _, f := range files {
		r, err := shop.ReadReport(f)
		if errors.Is(err, os.ErrNotExist) {
			continue // being replaced
		}
		if err != nil {
			return t, err
		}
		t.add(r)
	}
	return t, nil
}

func (t *tally) add(r shop.Report) {
	for _, c := range r.Counts {
		t.calls += c.Calls
		t.failures += c.Failures
		if c.Calls > 0 {
			t.edges++
		}
		if c.LastError != "" {
			t.lastError = fmt.Sprintf("%s → %s %s/%d: %s", c.Client, c.Server, c.Protocol, c.Port, c.LastError)
		}
	}
}

// since is what happened after an earlier count.
func (t tally) since(before tally) tally {
	return tally{calls: t.calls - before.calls, failures: t.failures - before.failures, edges: t.edges, lastError: t.lastError}
}

func (t tally) String() string {
	s := fmt.Sprintf("%d calls, %d failures", t.calls, t.failures)
	if t.failures > 0 && t.lastError != "" {
		s += "; the last: " + t.lastError
	}
	return s
}
