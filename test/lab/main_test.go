package lab

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain builds the programs that labs are made of, unless BULKHEAD_BIN names them, and holds
// that no goroutine outlives the tests.
func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Getenv("BULKHEAD_BIN") == "" && os.Geteuid() == 0 {
		dir, err := os.MkdirTemp("", "bulkhead-lab-bin-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := Build(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		os.Setenv("BULKHEAD_BIN", dir)
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// needRoot skips a test that needs root, or fails it where root is promised.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("BULKHEAD_REQUIRE_ROOT") == "1" {
		t.Fatal("not root, and BULKHEAD_REQUIRE_ROOT=1")
	}
	t.Skip("needs root")
}
