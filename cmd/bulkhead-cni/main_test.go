package main

import (
	"debug/elf"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite deps.txt")

// TestDependencies: what the plugin links beside the standard library is checked in, so that a new
// dependency shows in review. go test ./cmd/bulkhead-cni -update rewrites the list.
func TestDependencies(t *testing.T) {
	out, err := command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	slices.Sort(deps)
	for _, d := range deps {
		for _, banned := range []string{"memberlist", "yaml", "k8s.io", "bbolt", "grpc", "bulkhead/policy", "bulkhead/firewall",
			"bulkhead/identity", "bulkhead/flow", "bulkhead/alert", "bulkhead/daemon", "google/nftables"} {
			if strings.Contains(d, banned) {
				t.Errorf("the plugin links %s", d)
			}
		}
	}
	got := strings.Join(deps, "\n") + "\n"
	if *update {
		if err := os.WriteFile("deps.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("deps.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("dependencies changed; go test ./cmd/bulkhead-cni -update rewrites deps.txt\ngot\n%swant\n%s", got, want)
	}
}

// TestBinary: static, small and quick, for a runtime starts it twice in every container's life.
func TestBinary(t *testing.T) {
	const maxSize = 10 << 20
	bin := filepath.Join(t.TempDir(), "bulkhead-cni")
	if out, err := command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	fi, err := os.Stat(bin)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Size() >= maxSize {
		t.Errorf("%d bytes, at most %d", fi.Size(), maxSize)
	}
	f, err := elf.Open(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if libs, err := f.ImportedLibraries(); err != nil || len(libs) > 0 {
		t.Errorf("not static: %v %v", libs, err)
	}
	// The best of many starts: the machine's other work is not the plugin's.
	best := time.Hour
	for range 30 {
		cmd := exec.Command(bin)
		cmd.Env = []string{"CNI_COMMAND=VERSION", "CNI_NETNS=dummy", "CNI_IFNAME=dummy", "CNI_PATH=dummy"}
		began := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), `"1.1.0"`) {
			t.Fatalf("VERSION: %v\n%s", err, out)
		}
		best = min(best, time.Since(began))
	}
	t.Logf("%.1f MB, best start %v", float64(fi.Size())/1e6, best)
	if best > 100*time.Millisecond {
		t.Errorf("the best of 30 starts took %v", best)
	}
}

// command runs as the plugin is built.
func command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return cmd
}
