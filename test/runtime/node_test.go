package runtime

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// node is one machine of its own; see the package's drawing.
type node struct {
	t      *testing.T
	dir    string // of everything that the test writes
	init   *exec.Cmd
	api    *api.Client
	daemon *process
	world  *world
}

// needs fails the test, or skips it where nobody promised root, when something is missing.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	missing := func(format string, args ...any) {
		t.Helper()
		if os.Getenv("BULKHEAD_REQUIRE_ROOT") == "1" {
			t.Fatalf(format, args...)
		}
		t.Skipf(format, args...)
	}
	if os.Geteuid() != 0 {
		missing("needs root")
	}
	for _, p := range append(programs, "ip", "nsenter", "busybox") {
		path, err := exec.LookPath(p)
		if err != nil {
			missing("%s: not found; apt-get install --no-install-recommends podman runc conmon containerd busybox-static iproute2 util-linux", p)
		}
		if p == "busybox" && !static(path) {
			missing("%s: needs shared libraries, and the images hold nothing else; apt-get install busybox-static", path)
		}
	}
	for _, p := range []string{"bulkheadd", "bulkhead-cni", "cni/bridge"} {
		if _, err := os.Stat(filepath.Join(programsDir(t), p)); err != nil {
			t.Fatalf("%v; run: make tools", err)
		}
	}
}

func static(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}

// programsDir is where `make tools` puts what it builds.
func programsDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../bin")
	if env := os.Getenv("BULKHEAD_BIN"); env != "" {
		dir, err = filepath.Abs(env)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// newNode makes a node with bulkheadd on it; both end with the test. Sockets are in its folder, so
// its name is short (unix(7)).
func newNode(t *testing.T) *node {
	t.Helper()
	dir, err := os.MkdirTemp("", "bhrt")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir}
	t.Cleanup(n.remove)
	n.startInit()
	n.world = n.openWorld()
	n.writeChain()
	n.startDaemon()
	n.api = api.NewClient(n.path("api.sock"))
	t.Cleanup(n.api.Close)
	return n
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

func (n *node) write(name, text string) string {
	n.t.Helper()
	path := n.path(name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		n.t.Fatal(err)
	}
	return path
}

// startInit starts the process that is the node.
func (n *node) startInit() {
	n.t.Helper()
	n.init = exec.Command("/proc/self/exe")
	n.init.Env = append(os.Environ(), initEnv+"="+n.dir)
	n.init.Stderr = os.Stderr
	n.init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC,
	}
	out, err := n.init.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := n.init.Start(); err != nil {
		n.t.Fatalf("start the node: %v", err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "ready\n" {
		n.t.Fatalf("start the node: %s %v", line, err)
	}
}

// remove ends the node. Its mounts and namespaces go with its processes, its cgroups do not.
func (n *node) remove() {
	if n.init != nil && n.init.Process != nil {
		_ = n.init.Process.Kill() // and with it the kernel ends every process of the node
		_ = n.init.Wait()         // "killed"
	}
	var errs []error
	deadline := time.Now().Add(5 * time.Second)
	for { // a cgroup is busy until the kernel has buried its last process
		errs = removeCgroups(n.cgroup())
		if len(errs) == 0 || time.Now().After(deadline) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := errors.Join(append(errs, os.RemoveAll(n.dir))...); err != nil {
		n.t.Error(err)
	}
	if mounts, err := os.ReadFile("/proc/mounts"); err != nil || bytes.Contains(mounts, []byte(n.dir)) {
		n.t.Errorf("%s: still in the machine's mounts (%v)", n.dir, err)
	}
}

// cgroup is the name of all containers' parent.
func (n *node) cgroup() string { return filepath.Base(n.dir) }

// removeCgroups removes the empty cgroups of a name in each hierarchy, children first.
func removeCgroups(name string) (errs []error) {
	tops, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
	if top := "/sys/fs/cgroup/" + name; exists(top) {
		tops = append(tops, top)
	}
	for _, top := range tops {
		var dirs []string
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			if err := unix.Rmdir(dirs[i]); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("remove %s: %w", dirs[i], err))
			}
		}
	}
	return errs
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
