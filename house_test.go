// Package house holds the rules of the house that no compiler checks: which room may import which,
// one package comment a package, and a repository that speaks only of itself.
package house

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

const module = "github.com/bulkhead-firewall/bulkhead"

// rooms lists for each room the rooms of ours that it may import. A room that is not listed may
// import all of them: commands, the daemon, examples and tests stand on top.
var rooms = map[string][]string{
	"identity": {},
	"policy":   {"identity"},
	"flow":     {"policy", "identity"},
	"alert":    {"flow", "policy", "identity"},
	"firewall": {"flow", "policy", "identity"},
	"kube":     {"policy", "identity"},
	"api":      {},
	"cni":      {"api"},
	"runtimes": {},
	"holder":   {},
	"gossip":   {},
}

// only says which outside modules belong to one room alone.
var only = map[string][]string{
	"github.com/google/nftables":      {"firewall", "test"},
	"github.com/hashicorp/memberlist": {"gossip"},
	"k8s.io/client-go":                {"kube"},
	"github.com/google/gopacket":      {"firewall", "test", "examples"},
	"golang.org/x/net/dns":            {"flow", "examples", "test"},
	"github.com/containerd":           {"runtimes", "test"},
	"google.golang.org/grpc":          {"runtimes", "test"},
	"k8s.io/cri-api":                  {"test"},
}

type goPackage struct {
	ImportPath   string
	Dir          string
	Doc          string
	Name         string
	Imports      []string
	GoFiles      []string
	TestGoFiles  []string
	ForTest      string
	XTestGoFiles []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all []goPackage
	for dec := json.NewDecoder(out); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("go list found %d packages; want the whole house", len(all))
	}
	return all
}

func room(path string) string {
	rest, ok := strings.CutPrefix(path, module+"/")
	if !ok {
		return ""
	}
	first, _, _ := strings.Cut(rest, "/")
	return first
}

func TestImportsPointOneWay(t *testing.T) {
	for _, p := range packages(t) {
		allowed, ruled := rooms[room(p.ImportPath)]
		for _, imp := range p.Imports {
			if to := room(imp); ruled && to != "" && to != room(p.ImportPath) && !contains(allowed, to) &&
				p.ImportPath != module+"/api/server" {
				t.Errorf("%s imports %s; %s may import only %v", p.ImportPath, imp, room(p.ImportPath), allowed)
			}
			for mod, owners := range only {
				if (imp == mod || strings.HasPrefix(imp, mod+"/")) && !contains(owners, room(p.ImportPath)) {
					t.Errorf("%s imports %s, which belongs to %v", p.ImportPath, imp, owners)
				}
			}
		}
	}
}

func TestOnePackageComment(t *testing.T) {
	comment := regexp.MustCompile(`(?m)^(// Package |// Command |/\*\nPackage |// Program )`)
	for _, p := range packages(t) {
		n := 0
		for _, f := range p.GoFiles {
			src, err := os.ReadFile(p.Dir + "/" + f)
			if err != nil {
				t.Fatal(err)
			}
			head, _, _ := strings.Cut("\n"+string(src), "\npackage ")
			if comment.MatchString(head) {
				n++
			}
		}
		if len(p.GoFiles) > 0 && n != 1 {
			t.Errorf("%s has %d package comments, want 1", p.ImportPath, n)
		}
	}
}

// TestSpeaksOfItself keeps paths of somebody's machine out of what is committed.
func TestSpeaksOfItself(t *testing.T) {
	out, err := exec.Command("git", "ls-files").Output()
	if err != nil {
		t.Fatal(err)
	}
	foreign := regexp.MustCompile(`/work/(main|shared|notes)|proxy\.golang\.org|deb\.debian\.org|/root/go/`)
	for _, f := range strings.Fields(string(out)) {
		data, err := os.ReadFile(f)
		if err != nil || f == "house_test.go" {
			continue
		}
		if m := foreign.Find(data); m != nil {
			t.Errorf("%s: holds %q", f, m)
		}
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
