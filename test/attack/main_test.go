package attack

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

// TestMain builds the programs that labs are made of, unless BULKHEAD_BIN names them, and takes the
// shared labs down. The same binary is the program that the attacker runs, see [runSender].
func TestMain(m *testing.M) {
	if os.Getenv(senderEnv) != "" {
		os.Exit(runSender(os.Stdin, os.Stdout))
	}
	if file := os.Getenv(daemonEnv); file != "" {
		os.Exit(runDaemon(file))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Getenv("BULKHEAD_BIN") == "" && os.Geteuid() == 0 {
		dir, err := os.MkdirTemp("", "bulkhead-attack-bin-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := build(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		os.Setenv("BULKHEAD_BIN", dir)
	}
	// Tricks that are tried while the daemon restarts are all tried at a time: they share its ends.
	flag.Parse()
	if err := flag.Set("test.parallel", "256"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	errs := []error{closeArenas()}
	if code == 0 {
		errs = append(errs, goleak.Find())
	}
	for _, err := range errs {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	printTable(os.Stdout)
	return code
}

// build makes the product's programs and takes the reference plugins from the checkout's bin/cni.
func build(dir string) error {
	root, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	plugins := filepath.Join(root, "bin", "cni")
	for _, argv := range [][]string{
		{filepath.Join(root, "test", "tools", "build.sh"), plugins},
		{"go", "build", "-o", dir + "/", root + "/cmd/bulkheadd", root + "/cmd/bulkhead-cni", root + "/cmd/bulkhead-lab"},
	} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", argv, err, out)
		}
	}
	return os.Symlink(plugins, filepath.Join(dir, "cni"))
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
