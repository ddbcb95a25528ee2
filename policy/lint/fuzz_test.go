package lint_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/lint"
)

// FuzzCheck: whatever the parser takes is linted, with and without an inventory, and every finding
// has a place in the file and a fix.
func FuzzCheck(f *testing.F) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		f.Fatal(err)
	}
	for _, name := range names {
		a, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, x := range a.Files {
			if filepath.Ext(x.Name) == ".yaml" {
				f.Add(string(x.Data))
			}
		}
	}
	town, err := os.ReadFile("testdata/town.yaml")
	if err != nil {
		f.Fatal(err)
	}
	v := view(f, "town.yaml", town)
	f.Fuzz(func(t *testing.T, text string) {
		list, err := policy.Parse("x", []byte(text))
		if err != nil {
			return
		}
		set, err := policy.NewSet(list...)
		if err != nil {
			t.Fatalf("parsed, and no set: %v", err)
		}
		for _, found := range [][]lint.Finding{lint.Check(set, nil, lint.Options{Now: july}), lint.Check(set, v, lint.Options{Now: july, Strict: true})} {
			for _, x := range found {
				if x.File != "x" || x.Line < 1 || x.Column < 1 || x.Message == "" || x.Fix == "" && x.Check != "converted" {
					t.Fatalf("%+v", x)
				}
			}
			lint.Report(found, "")
		}
	})
}
