package lint_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/kube"
	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/lint"
)

var update = flag.Bool("update", false, "write what is found into testdata")

var july = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// view makes a view of manifests, with pod blocks, as a daemon configured with them would have.
func view(t testing.TB, name string, manifests []byte) *identity.View {
	t.Helper()
	inv, err := kube.ParseManifests(name, manifests)
	if err != nil {
		t.Fatal(err)
	}
	ix := identity.NewIndex("n1")
	ix.SetNamespaceLabels(inv.Namespaces)
	for _, w := range inv.Workloads {
		ix.Upsert(w)
	}
	ix.SetServices(inv.Services)
	ix.SetPodBlocks(prefixes("10.1.0.0/16"))
	ix.SetNetworks(map[string][]netip.Prefix{"office": prefixes("198.51.100.0/24")})
	return ix.View()
}

func setOf(t testing.TB, files map[string]string) *policy.Set {
	t.Helper()
	var all []policy.Policy
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		list, err := policy.Parse(name, []byte(files[name]))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, list...)
	}
	set, err := policy.NewSet(all...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func lines(list []lint.Finding) string {
	var out strings.Builder
	for _, f := range list {
		out.WriteString(f.String() + "\n")
	}
	return out.String()
}

// TestChecks: testdata holds a file for each check: wrong.yaml, what is found in it (want), and
// right.yaml, in which the check finds nothing. A first line "with town.yaml" gives both that
// inventory.
func TestChecks(t *testing.T) {
	for _, kind := range lint.Checks() {
		if kind.ID == "syntax" || kind.ID == "too-many-rules" {
			continue // TestSyntax, TestBounds
		}
		t.Run(kind.ID, func(t *testing.T) {
			name := filepath.Join("testdata", kind.ID+".txtar")
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatalf("every check has a case that it finds and one that it does not: %v", err)
			}
			a := txtar.Parse(data)
			files := map[string]string{}
			for _, f := range a.Files {
				files[f.Name] = string(f.Data)
			}
			options := lint.Options{Now: july, Strict: true}
			if kind.ID == "idle-rule" {
				options.Used = func(p *policy.Policy, _ policy.Direction, _ int) lint.Use {
					return map[string]lint.Use{
						"old":   {Counted: july.AddDate(0, -6, 0), Last: july.AddDate(0, -2, 0)},
						"never": {Counted: july.AddDate(0, -3, 0)},
						"used":  {Counted: july.AddDate(0, -6, 0), Last: july.AddDate(0, 0, -3)},
					}[p.Name]
				}
			}
			var v *identity.View
			if strings.HasPrefix(string(a.Comment), "with town.yaml") {
				town, err := os.ReadFile("testdata/town.yaml")
				if err != nil {
					t.Fatal(err)
				}
				v = view(t, "town.yaml", town)
			} else if kind.Needs {
				t.Fatal("the check needs an inventory, and its case has none")
			}
			got := lint.Check(setOf(t, map[string]string{"wrong.yaml": files["wrong.yaml"]}), v, options)
			if *update {
				for i := range a.Files {
					if a.Files[i].Name == "want" {
						a.Files[i].Data = []byte(lines(got))
					}
				}
				if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if lines(got) != files["want"] {
				t.Errorf("found\n%s\nwant\n%s", lines(got), files["want"])
			}
			is := func(f lint.Finding) bool { return f.Check == kind.ID }
			if !slices.ContainsFunc(got, is) {
				t.Errorf("wrong.yaml: %s finds nothing", kind.ID)
			}
			for _, f := range lint.Check(setOf(t, map[string]string{"right.yaml": files["right.yaml"]}), v, options) {
				if is(f) {
					t.Errorf("right.yaml: %s", f)
				}
			}
		})
	}
}

func prefixes(text ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, x := range text {
		out = append(out, netip.MustParsePrefix(x))
	}
	return out
}

// TestDocumented: docs/lint.md has a heading for every check, which SARIF's help points at, and says of
// each how severe it is.
func TestDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/lint.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range lint.Checks() {
		_, section, found := strings.Cut(string(doc), "\n### "+k.ID+"\n")
		if !found {
			t.Errorf("docs/lint.md has no heading %q", k.ID)
			continue
		}
		section, _, _ = strings.Cut(section, "\n### ")
		if !strings.Contains(section, k.Severity.String()) || k.Needs != strings.Contains(section, "needs an inventory") || !strings.Contains(section, "**Fix:**") {
			t.Errorf("docs/lint.md: %s: want its severity (%s), whether it needs an inventory (%v) and its fix in\n%s", k.ID, k.Severity, k.Needs, section)
		}
	}
}
