package lint_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy/lint"
)

// wanted are recipes that are wide on purpose, with the check that says so.
var wanted = map[string]string{"allow-all.yaml": "too-wide"}

// TestRecipes: the recipes that people know raise no false alarm, each alone and all together, with
// an inventory and without.
func TestRecipes(t *testing.T) {
	const folder = "../../examples/policies/"
	names, err := filepath.Glob(folder + "*.yaml")
	if err != nil || len(names) < 20 {
		t.Fatalf("%d recipes in %s: %v", len(names), folder, err)
	}
	cluster, err := os.ReadFile(folder + "inventory/cluster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sets := map[string]map[string]string{"all": {}}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		base := filepath.Base(name)
		sets["all"][base] = string(data)
		sets[base] = map[string]string{base: string(data)}
	}
	for name, files := range sets {
		for inventory, v := range map[string]*identity.View{"none": nil, "cluster.yaml": view(t, "cluster.yaml", cluster)} {
			t.Run(name+"/"+inventory, func(t *testing.T) {
				found := map[string]bool{}
				for _, f := range lint.Check(setOf(t, files), v, lint.Options{Now: july}) {
					if f.Severity > lint.Note && wanted[f.File] != f.Check {
						t.Errorf("%s", f)
					}
					found[f.File+" "+f.Check] = true
				}
				for file, check := range wanted {
					if files[file] != "" && !found[file+" "+check] {
						t.Errorf("%s: %s says nothing", file, check)
					}
				}
			})
		}
	}
}
