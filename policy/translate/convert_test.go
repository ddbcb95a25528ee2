package translate_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/translate"
)

var update = flag.Bool("update", false, "write what comes out into testdata")

// TestConvert: each file of testdata is one conversion: "to KIND", in.yaml, out.yaml and what is lost.
func TestConvert(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatal(err, "no cases")
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string]string{}
			for _, f := range a.Files {
				files[f.Name] = string(f.Data)
			}
			first, _, _ := strings.Cut(string(a.Comment), "\n")
			kind, ok := translate.Targets[strings.TrimPrefix(first, "to ")]
			if !ok {
				t.Fatalf("the first line is %q, want \"to KIND\"", first)
			}
			in, err := policy.Parse("in.yaml", []byte(files["in.yaml"]))
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			var out []policy.Policy
			for i := range in {
				r := translate.Convert(&in[i], kind)
				out = append(out, r.Policies...)
				for _, l := range r.Losses {
					got["losses"] += l.String() + "\n"
				}
			}
			text, err := policy.MarshalAll(out)
			if err != nil {
				t.Fatal(err)
			}
			got["out.yaml"] = string(text)
			if _, err := policy.Parse("out.yaml", text); err != nil {
				t.Errorf("what was written cannot be read: %v", err)
			}
			for i := range a.Files {
				f := &a.Files[i]
				if text, is := got[f.Name]; is || f.Name == "losses" {
					if *update {
						f.Data = []byte(text)
					} else if text != string(f.Data) {
						t.Errorf("%s is\n%s\nwant\n%s", f.Name, text, f.Data)
					}
				}
			}
			if *update {
				if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
