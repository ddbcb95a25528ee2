package kube

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite the expected text in testdata")

// TestInventory reads the YAML and JSON files of each archive as one directory and compares the
// whole inventory, or the whole error, with the archive's file "want".
func TestInventory(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("testdata/*.txtar: %v, %d files", err, len(archives))
	}
	for _, path := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			for _, f := range ar.Files {
				if f.Name != "want" {
					write(t, filepath.Join(dir, f.Name), f.Data)
				}
			}
			inv, err := ReadDir(dir)
			got := print(inv, err)
			got = strings.ReplaceAll(got, dir+"/", "")
			i := slices.IndexFunc(ar.Files, func(f txtar.File) bool { return f.Name == "want" })
			if i < 0 {
				ar.Files = append(ar.Files, txtar.File{Name: "want"})
				i = len(ar.Files) - 1
			}
			if *update {
				ar.Files[i].Data = []byte(got)
				write(t, path, txtar.Format(ar))
				return
			}
			if d := cmp.Diff(string(ar.Files[i].Data), got); d != "" {
				t.Errorf("%s (-want +got):\n%s", path, d)
			}
		})
	}
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// print is the whole inventory as text.
func print(inv *Inventory, err error) string {
	if err != nil {
		return "error\n" + err.Error() + "\n"
	}
	var b strings.Builder
	for _, w := range inv.Workloads {
		fmt.Fprintf(&b, "workload %s/%s service=%s node=%q addrs=%v ports=%v labels=%v namespace=%v", w.Namespace, w.Name,
			w.Service, w.Node, w.Addrs, w.Ports, w.Labels, w.NamespaceLabels)
		if w.HostNetwork {
			b.WriteString(" hostNetwork")
		}
		b.WriteString("\n")
	}
	for _, s := range inv.Services {
		fmt.Fprintf(&b, "service %s/%s addrs=%v selector=%v ports=%v\n", s.Namespace, s.Name, s.Addrs, s.Selector, s.Ports)
	}
	for _, p := range inv.Policies {
		fmt.Fprintf(&b, "policy %s %s at %s:%d\n%s\n", p.Kind, p.Name, p.File, p.Line, strings.TrimSpace(p.Text))
	}
	for _, n := range inv.Notes {
		fmt.Fprintf(&b, "note %s\n", n)
	}
	return b.String()
}

func TestReadDirTakesManifestsOnly(t *testing.T) {
	dir := t.TempDir()
	pod := func(name string) []byte {
		return []byte("{apiVersion: v1, kind: Pod, metadata: {name: " + name + "}}")
	}
	for _, f := range []string{"b.yaml", "a.yml", "c.json", ".hidden.yaml", "README.md", "d.yaml.bak"} {
		write(t, filepath.Join(dir, f), pod(strings.ReplaceAll(f, ".", "-")))
	}
	if err := os.Mkdir(filepath.Join(dir, "sub.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	inv, err := ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range inv.Workloads {
		got = append(got, w.Name)
	}
	if d := cmp.Diff([]string{"a-yml", "b-yaml", "c-json"}, got); d != "" {
		t.Error(d)
	}
}

func TestRelabel(t *testing.T) {
	inv, err := ParseManifests("x.yaml", []byte(`{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop, labels: {app: web, tier: front}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := inv.Workloads[0].Service.String(); got != "shop/web" {
		t.Errorf("service %s, want shop/web", got)
	}
	inv.Relabel([]string{"tier", "app"})
	if got := inv.Workloads[0].Service.String(); got != "shop/front" {
		t.Errorf("service %s after Relabel, want shop/front", got)
	}
}

func TestReadFilesMissing(t *testing.T) {
	if _, err := ReadFiles(filepath.Join(t.TempDir(), "none.yaml")); !os.IsNotExist(err) {
		t.Errorf("error %v, want not exist", err)
	}
}

// FuzzParseManifests holds that no input panics, that errors name their place, and that what is
// read back is within the bounds that the rest of the program relies on.
func FuzzParseManifests(f *testing.F) {
	archives, _ := filepath.Glob("testdata/*.txtar")
	for _, path := range archives {
		ar, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range ar.Files {
			f.Add(file.Data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		inv, err := ParseManifests("in.yaml", data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "in.yaml:") {
				t.Errorf("error without its place: %v", err)
			}
			return
		}
		for _, w := range inv.Workloads {
			if w.Name == "" || w.Namespace == "" || w.NamespaceLabels[namespaceNameLabel] != w.Namespace {
				t.Errorf("workload %+v", w)
			}
			for _, a := range w.Addrs {
				if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
					t.Errorf("address %v", a)
				}
			}
		}
	})
}

func TestForeign(t *testing.T) {
	for text, want := range map[string]bool{
		`[]`: true, ` [{"client": "a"}]`: true, `{"edges": []}`: true, `7`: true,
		`{"kind": "List", "items": []}`: false, `{"kind": null}`: false, ``: false, `{"kind": `: false, "kind: Pod": false,
	} {
		if got := Foreign([]byte(text)); got != want {
			t.Errorf("%s: %t, want %t", text, got, want)
		}
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "probes.json"), []byte("[1]"))
	inv, err := ReadFiles(dir)
	if err != nil || len(inv.Notes) != 1 {
		t.Errorf("a folder with probes: %v, notes %v", err, inv)
	}
	if _, err := ReadFiles(filepath.Join(dir, "probes.json")); err == nil {
		t.Error("probes named by themselves were read")
	}
}
