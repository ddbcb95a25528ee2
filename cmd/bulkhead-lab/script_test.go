package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs the command as a user does, one script per subject. Each script has a lab's name
// of its own in $LAB.
func TestScripts(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("BULKHEAD_REQUIRE_ROOT") == "1" {
			t.Fatal("not root, and BULKHEAD_REQUIRE_ROOT=1")
		}
		t.Skip("needs root")
	}
	bin := programs(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			e.Setenv("BULKHEAD_BIN", bin)
			lab := fmt.Sprintf("s%d-%d", os.Getpid(), time.Now().UnixNano()%1e6)
			e.Setenv("LAB", lab)
			e.Defer(func() {
				if out, err := exec.Command(filepath.Join(bin, "bulkhead-lab"), "down", "--name", lab).CombinedOutput(); err != nil {
					t.Errorf("down: %v: %s", err, out)
				}
			})
			return nil
		},
	})
}

// programs is BULKHEAD_BIN, or a folder with this command as it is now and the reference plugins.
func programs(t *testing.T) string {
	if bin := os.Getenv("BULKHEAD_BIN"); bin != "" {
		return bin
	}
	checkout, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	bin, plugins := t.TempDir(), filepath.Join(checkout, "bin", "cni")
	for _, argv := range []string{
		checkout + "/test/tools/build.sh " + plugins,
		"go build -o " + bin + "/ .",
		"ln -s " + plugins + " " + bin + "/cni",
	} {
		f := strings.Fields(argv)
		if out, err := exec.Command(f[0], f[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", argv, err, out)
		}
	}
	return bin
}
