package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Ctrl-C in the middle leaves as little behind as a demo that ends by itself. The whole demo is run
// by `make demo`, whose exit code says whether every promise was kept.
func TestInterruptedDemoLeavesNothing(t *testing.T) {
	bin := programs(t)
	before, err := snapshot()
	if err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	var out bytes.Buffer
	cmd := exec.Command(filepath.Join(bin, "demo"))
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "KEEP=")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	time.Sleep(6 * time.Second) // any moment will do: attaching, or learning
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("exit code 0 of an interrupted demo")
		}
	case <-time.After(30 * time.Second):
		_ = cmd.Process.Kill() // it hangs: that is the failure reported below
		t.Fatalf("still running 30 s after SIGINT\n%s", out.String())
	}
	if !strings.Contains(out.String(), "interrupted; the shop was taken down") {
		t.Errorf("output:\n%s", out.String())
	}
	folders, err := filepath.Glob(filepath.Join(tmp, "*"))
	if err != nil || len(folders) > 0 {
		t.Errorf("folders left: %v, %v", folders, err)
	}
	left, err := before.leftovers("no-such-lab", filepath.Join(tmp, "lab"), filepath.Join(tmp, "bulkhead-demo-"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// programs is where `make tools` put them; BULKHEAD_BIN says so in `make test`.
func programs(t *testing.T) string {
	t.Helper()
	must := os.Getenv("BULKHEAD_REQUIRE_ROOT") == "1"
	bin := os.Getenv("BULKHEAD_BIN")
	switch {
	case bin != "" && os.Geteuid() == 0:
		return bin
	case must:
		t.Fatalf("BULKHEAD_REQUIRE_ROOT=1, but uid is %d and BULKHEAD_BIN is %q", os.Geteuid(), bin)
	}
	t.Skip("needs root and BULKHEAD_BIN, the folder of the programs; run: make test")
	return ""
}
