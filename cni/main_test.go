package cni_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/api/server"
)

var update = flag.Bool("update", false, "rewrite the goldens in testdata")

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	os.RemoveAll(built.dir)
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

var built struct {
	once sync.Once
	dir  string
	err  error
}

// plugin is the folder of the plugin as `make build` makes it, built anew for this run when the
// first test asks.
func plugin(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "bhcni"); built.err != nil {
			return
		}
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", built.dir, "../cmd/bulkhead-cni")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build the plugin: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.dir
}

// daemon is the other end of the socket: the true api/server over a backend that writes down what
// it is told and answers what the test wants. The methods that the plugin never calls are nil.
type daemon struct {
	server.Backend
	socket string

	mu     sync.Mutex
	heard  []api.CNIRequest
	answer func(context.Context, api.CNIRequest) error // nil: all is well
}

func (d *daemon) CNI(ctx context.Context, r api.CNIRequest) error {
	d.mu.Lock()
	d.heard = append(d.heard, r)
	answer := d.answer
	d.mu.Unlock()
	if answer == nil {
		return nil
	}
	return answer(ctx, r)
}

// take returns what was heard since the last call.
func (d *daemon) take() []api.CNIRequest {
	d.mu.Lock()
	defer d.mu.Unlock()
	heard := d.heard
	d.heard = nil
	return heard
}

// start serves until the returned function is called, at the latest until the test ends.
func (d *daemon) start(t *testing.T) (stop func()) {
	t.Helper()
	s, err := server.Open(server.Config{Socket: d.socket, Log: slog.New(slog.DiscardHandler)}, d)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the daemon's end: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func refuse(code, message string) func(context.Context, api.CNIRequest) error {
	return func(context.Context, api.CNIRequest) error { return api.Errorf(code, "%s", message) }
}

func hang(ctx context.Context, _ api.CNIRequest) error { <-ctx.Done(); return ctx.Err() }

// enterNode gives the test a network namespace of its own that plays the node: the runtime's, in
// which plugins run. The thread is locked and dies with the test, and the namespace with it.
func enterNode(t *testing.T) {
	t.Helper()
	needRoot(t)
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("ip link set lo up: %v\n%s", err, out)
	}
}

// newPod makes a network namespace and returns the path where it is mounted.
func newPod(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is in another namespace and must die
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}
		made <- err
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dropPod(t, path) })
	return path
}

// dropPod ends a pod's namespace; ending it twice is fine.
func dropPod(t *testing.T, path string) {
	t.Helper()
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		t.Errorf("unmount %s: %v", path, err)
	}
	os.Remove(path)
}

// tools is where the reference plugins are.
func tools(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("BULKHEAD_BIN")
	if dir == "" {
		dir = "../bin"
	}
	dir, err := filepath.Abs(filepath.Join(dir, "cni"))
	if err == nil {
		_, err = os.Stat(filepath.Join(dir, "bridge"))
	}
	if err != nil {
		t.Fatalf("the reference plugins: %v; run: make tools", err)
	}
	return dir
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("BULKHEAD_REQUIRE_ROOT") == "1" {
		t.Fatal("must run as root: BULKHEAD_REQUIRE_ROOT=1")
	}
	t.Skip("needs root")
}

func compact(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
