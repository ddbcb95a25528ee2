package firewall

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// requireRoot ends the test early for somebody without root, and fails it where the run promised
// root: a kernel test that never ran must not look green.
func requireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("BULKHEAD_REQUIRE_ROOT") == "1" {
		t.Fatal("not root, and BULKHEAD_REQUIRE_ROOT=1")
	}
	t.Skip("needs root: it makes network namespaces")
}

// testNamespace makes a network namespace with loopback up and returns its path; it is gone after
// the test.
func testNamespace(t testing.TB) string {
	t.Helper()
	requireRoot(t)
	var b [4]byte
	_, _ = rand.Read(b[:])
	name := "bhfw" + hex.EncodeToString(b[:])
	testRun(t, "ip", "netns", "add", name)
	t.Cleanup(func() { testRun(t, "ip", "netns", "del", name) })
	testRun(t, "ip", "-n", name, "link", "set", "lo", "up")
	return "/run/netns/" + name
}

// testRun runs a program that must succeed and returns what it printed.
func testRun(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// testIn runs a program inside the namespace at path; it must succeed.
func testIn(t testing.TB, path string, argv ...string) string {
	t.Helper()
	return testRun(t, append([]string{"ip", "netns", "exec", filepath.Base(path)}, argv...)...)
}

// testLoad loads nft text into the namespace at path.
func testLoad(t testing.TB, path, ruleset string) {
	t.Helper()
	cmd := exec.Command("ip", "netns", "exec", filepath.Base(path), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(ruleset)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft -f: %v\n%s\n%s", err, out, ruleset)
	}
}

func threadNamespace(t testing.TB) string {
	t.Helper()
	link, err := os.Readlink(ownNamespacePath)
	if err != nil {
		t.Fatal(err)
	}
	return link
}

func TestEnterRunsInsideAndComesBack(t *testing.T) {
	path := testNamespace(t)
	home := threadNamespace(t)
	var wg sync.WaitGroup
	for range 50 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			err := Enter(path, func() error {
				if threadNamespace(t) == home {
					t.Error("still at home")
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			if threadNamespace(t) != home {
				t.Error("a caller's thread was moved")
			}
		}()
	}
	wg.Wait()
}

func TestEnterReturnsTheError(t *testing.T) {
	path := testNamespace(t)
	want := errors.New("no")
	if err := Enter(path, func() error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
	err := Enter(path, func() error { runtime.Goexit(); return nil })
	if err == nil || !strings.Contains(err.Error(), "ended its goroutine") {
		t.Errorf("after Goexit: %v", err)
	}
	// The thread came back all the same, and the main thread never went.
	entries, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil || len(entries) == 0 {
		t.Fatal(err)
	}
	for _, e := range entries {
		if link, err := os.Readlink(e); err == nil && link != threadNamespace(t) {
			t.Errorf("%s is left in %s", e, link)
		}
	}
}

func TestOpenNamespaceRefusesOtherFiles(t *testing.T) {
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, want string }{
		{file, "not a network namespace"},
		{fifo, "not a network namespace"},
		{dir, "not a network namespace"},
		{"/proc/self/ns/mnt", "not a network namespace"},
		{filepath.Join(dir, "gone"), "no such file or directory"},
	} {
		if _, err := OpenNamespace(c.path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.path, err, c.want)
		}
	}
}

func TestOwnNamespace(t *testing.T) {
	path := testNamespace(t)
	for _, c := range []struct {
		path string
		own  bool
	}{{path, false}, {"/proc/self/ns/net", true}, {"/proc/thread-self/ns/net", true}} {
		if own, err := IsOwnNamespace(c.path); err != nil || own != c.own {
			t.Errorf("%s: own %v, %v; want %v", c.path, own, err, c.own)
		}
	}
	// Also when the caller stands inside a workload's namespace.
	err := Enter(path, func() error {
		own, err := IsOwnNamespace(path)
		if own {
			t.Error("a workload's namespace taken for our own")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if same, err := SameNamespace(path, path); err != nil || !same {
		t.Errorf("same as itself: %v, %v", same, err)
	}
	if same, err := SameNamespace(path, "/proc/self/ns/net"); err != nil || same {
		t.Errorf("same as the process's: %v, %v", same, err)
	}
}
