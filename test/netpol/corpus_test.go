package netpol

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// testCase is one folder of the corpus.
type testCase struct {
	name     string
	policies string
	probes   []probe
}

// town is one inventory of the corpus with its cases.
type town struct {
	name      string
	inventory string
	cases     []testCase
}

func corpus(t *testing.T) []town {
	t.Helper()
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	inventories, err := filepath.Glob("corpus/*/inventory.yaml")
	if err != nil || len(inventories) == 0 {
		t.Fatalf("corpus: %v, %d inventories", err, len(inventories))
	}
	var out []town
	for _, path := range inventories {
		dir := filepath.Dir(path)
		x := town{name: filepath.Base(dir), inventory: read(path)}
		files, err := filepath.Glob(dir + "/*/probes.json")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %d cases", dir, err, len(files))
		}
		for _, f := range files {
			c := testCase{name: filepath.Base(filepath.Dir(f)), policies: read(filepath.Join(filepath.Dir(f), "policies.yaml"))}
			if err := json.Unmarshal([]byte(read(f)), &c.probes); err != nil {
				t.Fatalf("%s: %v", f, err)
			}
			for _, p := range c.probes {
				if p.Expect != "allow" && p.Expect != "deny" || len(p.Because) < 10 {
					t.Errorf("%s: %s: want expect (allow or deny) and because", f, p)
				}
			}
			x.cases = append(x.cases, c)
		}
		out = append(out, x)
	}
	return out
}

func (c testCase) expected() []verdict {
	out := make([]verdict, len(c.probes))
	for i, p := range c.probes {
		out[i] = verdict(p.Expect)
	}
	return out
}

// TestEvaluator: every verdict of the corpus is the evaluator's.
func TestEvaluator(t *testing.T) {
	for _, town := range corpus(t) {
		e, err := newEvaluator(town.inventory)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range town.cases {
			t.Run(town.name+"/"+c.name, func(t *testing.T) {
				set, err := setOf(c.policies)
				if err != nil {
					t.Fatal(err)
				}
				got, why, err := e.answer(set, c.probes)
				if err != nil {
					t.Fatal(err)
				}
				for i, p := range c.probes {
					if got[i] != verdict(p.Expect) {
						t.Errorf("%s: %s, expected %s: %s\n\t%s", p, got[i], p.Expect, p.Because, strings.Join(why[i], "\n\t"))
					}
				}
			})
		}
	}
}

// TestKernel: every verdict of the corpus is the kernel's, with real packets.
func TestKernel(t *testing.T) {
	needRoot(t)
	for _, town := range corpus(t) {
		k, err := newKernel(t.Context(), lab.Options{Manifests: town.inventory})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := k.close(); err != nil {
				t.Error(err)
			}
		})
		asked := 0
		for _, c := range town.cases {
			t.Run(town.name+"/"+c.name, func(t *testing.T) {
				if err := k.set(t.Context(), c.policies); err != nil {
					t.Fatal(err)
				}
				got, err := k.settled(t.Context(), c.probes, c.expected())
				if err != nil {
					t.Fatal(err)
				}
				for i, p := range c.probes {
					asked++
					if got[i] != verdict(p.Expect) {
						t.Errorf("%s: %s, expected %s: %s", p, got[i], p.Expect, p.Because)
					}
				}
			})
		}
		t.Logf("%s: %d verdicts of the kernel", town.name, asked)
	}
}
