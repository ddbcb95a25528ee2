package server_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/api/server"
)

// childMain is what this test binary does when it plays another process: a daemon that holds a
// socket until its input ends, or a caller with the uid that it was started with.
func childMain() {
	socket := os.Getenv("BULKHEAD_TEST_SOCKET")
	switch os.Getenv("BULKHEAD_TEST_CHILD") {
	case "daemon":
		if _, err := server.Open(server.Config{Socket: socket}, newBackend()); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("open")
		os.Stdin.Read(make([]byte, 1))
		os.Exit(0) // as kill -9 would: nothing is given back
	case "caller":
		c := api.NewClient(socket)
		_, err := c.Status(context.Background())
		fmt.Println("status:", err)
		err = c.CNI(context.Background(), api.CNIRequest{Command: "DEL"})
		fmt.Println("cni:", err)
		os.Exit(0)
	}
}

func child(t *testing.T, role, socket string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "BULKHEAD_TEST_CHILD="+role, "BULKHEAD_TEST_SOCKET="+socket)
	return cmd
}

// holder starts another process that holds the socket; the returned function kills it.
func holder(t *testing.T, socket string) (pid int, kill func()) {
	t.Helper()
	cmd := child(t, "daemon", socket)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() { cmd.Process.Kill(); cmd.Wait() }
	t.Cleanup(kill)
	line := make([]byte, 5)
	if n, _ := out.Read(line); string(line[:n]) != "open\n" {
		t.Fatalf("the other daemon says %q", line[:n])
	}
	return cmd.Process.Pid, kill
}

func TestTwoDaemons(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "api.sock")
	pid, kill := holder(t, socket)
	_, err := server.Open(server.Config{Socket: socket}, newBackend())
	want := fmt.Sprintf("own %s: held by pid %d; stop the other daemon", socket, pid)
	if err == nil || err.Error() != want {
		t.Fatalf("got  %v\nwant %s", err, want)
	}
	if _, err := os.Stat(socket); err != nil {
		t.Errorf("the refused one took the socket away: %v", err)
	}
	kill()
	if _, err := os.Stat(socket); err != nil {
		t.Fatalf("the killed daemon should leave its socket: %v", err)
	}
	c, _ := start(t, newBackend(), server.Config{Socket: socket}) // over the stale socket and lock
	if _, err := c.Status(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestSomebodyElseAnswers: a living listener that knows nothing of our lock is not pushed aside.
func TestSomebodyElseAnswers(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = server.Open(server.Config{Socket: socket}, newBackend())
	if want := "own " + socket + ": another process answers there; stop it"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestBadSockets(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	long := "/" + strings.Repeat("x", 104)
	for socket, want := range map[string]string{
		file:            "own " + file + ": there is something that is not a socket; move it away, or name another socket",
		"api.sock":      `socket "api.sock": want an absolute path`,
		long:            "socket " + long + ": 105 bytes, at most 103",
		"/proc/no/sock": "own /proc/no/sock: mkdir /proc/no: no such file or directory",
	} {
		if _, err := server.Open(server.Config{Socket: socket}, newBackend()); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	if b, _ := os.ReadFile(file); string(b) != "precious" {
		t.Errorf("the file now holds %q", b)
	}
	if _, err := os.Stat(file + ".lock"); err == nil {
		t.Error("a lock is left")
	}
}

// TestConnectBeforeRun: callers wait while the daemon starts, instead of failing.
func TestConnectBeforeRun(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "api.sock")
	s, err := server.Open(server.Config{Socket: socket}, newBackend())
	if err != nil {
		t.Fatal(err)
	}
	c := api.NewClient(socket)
	defer c.Close()
	answered := make(chan error, 1)
	go func() { _, err := c.Status(context.Background()); answered <- err }()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	if err := within(t, answered); err != nil {
		t.Error(err)
	}
	c.Close()
	stop()
	if err := within(t, ended); err != nil {
		t.Error(err)
	}
}

func TestDialErrors(t *testing.T) {
	dir := t.TempDir()
	for socket, want := range map[string]string{
		dir + "/none.sock": "dial " + dir + "/none.sock: no such file or directory; start the bulkheadd whose configuration names this socket",
		dir:                "dial " + dir + ": connection refused; start the bulkheadd whose configuration names this socket",
	} {
		_, err := api.NewClient(socket).Status(context.Background())
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	e := &api.DialError{Socket: api.DefaultSocket, Err: syscall.ECONNREFUSED}
	if want := "dial /run/bulkhead/api.sock: connection refused; start it with: systemctl start bulkheadd"; e.Error() != want {
		t.Errorf("got %s, want %s", e, want)
	}
}

// TestWhoMaySpeak starts callers with other uids and groups. The test opens the way to the socket
// wider than the server does, so that it is the peer check that answers.
func TestWhoMaySpeak(t *testing.T) {
	needRoot(t)
	const uid, gid, other = 64321, 64322, 64323
	for name, tc := range map[string]struct {
		cred *syscall.Credential
		gid  int
		want string
	}{
		"root": {&syscall.Credential{}, 0, "status: <nil>\ncni: <nil>\n"},
		"another uid": {&syscall.Credential{Uid: uid, Gid: gid}, 0,
			"status: uid 64321 may not use this socket; root may\ncni: uid 64321 may not use this socket; root may\n"},
		"another uid, group configured": {&syscall.Credential{Uid: uid, Gid: other}, gid,
			"status: uid 64321 may not use this socket; root and members of group 64322 may\n" +
				"cni: uid 64321 may not use this socket; root and members of group 64322 may\n"},
		"member": {&syscall.Credential{Uid: uid, Gid: gid}, gid,
			"status: <nil>\ncni: uid 64321 may not speak for a container runtime\n"},
		"member by a supplementary group": {&syscall.Credential{Uid: uid, Gid: other, Groups: manyGroups(gid)}, gid,
			"status: <nil>\ncni: uid 64321 may not speak for a container runtime\n"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("/tmp", "bhapi") // t.TempDir is closed to others
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			os.Chmod(dir, 0o755)
			socket := filepath.Join(dir, "api.sock")
			start(t, newBackend(), server.Config{Socket: socket, GID: tc.gid})
			fi, err := os.Stat(socket)
			if err != nil {
				t.Fatal(err)
			}
			if st := fi.Sys().(*syscall.Stat_t); fi.Mode().Perm() != 0o660 || int(st.Gid) != tc.gid {
				t.Errorf("socket has mode %v, group %d; want 0660, %d", fi.Mode().Perm(), st.Gid, tc.gid)
			}
			os.Chmod(socket, 0o666)
			cmd := child(t, "caller", socket)
			// The test binary lies where others cannot reach it.
			self, err := os.ReadFile("/proc/self/exe")
			if err != nil {
				t.Fatal(err)
			}
			cmd.Path, cmd.Dir = filepath.Join(dir, "caller"), "/"
			if err := os.WriteFile(cmd.Path, self, 0o755); err != nil {
				t.Fatal(err)
			}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: tc.cred}
			out, err := cmd.CombinedOutput()
			if err != nil || string(out) != tc.want {
				t.Errorf("err %v\ngot\n%s\nwant\n%s", err, out, tc.want)
			}
		})
	}
}

// manyGroups is more groups than fit in the first try, with gid at the end.
func manyGroups(gid uint32) (groups []uint32) {
	for g := uint32(70000); g < 70100; g++ {
		groups = append(groups, g)
	}
	return append(groups, gid)
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
