package translate_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/translate"
)

// FuzzConvert: whatever the parser takes is converted to something that can be written and read
// again, each loss with a place and a reason.
func FuzzConvert(f *testing.F) {
	for _, pattern := range []string{"testdata/*.txtar", "../../examples/policies/*.yaml"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			f.Fatal(pattern, err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			text := string(data)
			if _, in, ok := strings.Cut(text, "-- in.yaml --\n"); ok {
				text, _, _ = strings.Cut(in, "-- out.yaml --")
			}
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := policy.Parse("x", []byte(text))
		if err != nil {
			return
		}
		for i := range list {
			p := &list[i]
			translate.Uses(p)
			for _, kind := range translate.Targets {
				if p.Kind == kind {
					continue
				}
				r := translate.Convert(p, kind)
				for _, out := range r.Policies {
					again, err := policy.Marshal(out)
					if err != nil {
						t.Fatalf("to %s: %v", kind, err)
					}
					if _, err := policy.Parse("again", again); err != nil {
						t.Fatalf("to %s: %v\n%s", kind, err, again)
					}
				}
				for _, l := range r.Losses {
					if l.Place == "" || l.Path == "" || l.Why == "" {
						t.Fatalf("%+v", l)
					}
				}
				if len(r.Policies) == 0 && len(r.Losses) == 0 {
					t.Fatalf("%s to %s: nothing was written, nothing is said to be lost", p.Key(), kind)
				}
			}
		}
	})
}
