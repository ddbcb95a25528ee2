package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// patience is how long anything may take before a test gives up; what is waited for takes seconds.
const patience = 40 * time.Second

// process is a program that runs on a node for long.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// command is a program in the node's namespaces.
func (n *node) command(ctx context.Context, argv ...string) *exec.Cmd {
	args := []string{"--target", strconv.Itoa(n.init.Process.Pid), "--mount", "--pid", "--net", "--ipc", "--"}
	cmd := exec.CommandContext(ctx, "nsenter", append(args, argv...)...)
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+n.path("containers.conf"))
	cmd.Dir = "/"
	return cmd
}

// try runs a program to its end and returns what it printed on both.
func (n *node) try(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out bytes.Buffer
	cmd := n.command(ctx, argv...)
	// What a container's monitor inherits must not be a pipe, or we would wait for the container.
	file, err := os.CreateTemp(n.dir, "out")
	if err != nil {
		return "", err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	err = cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("took more than %v: %w", patience, err)
	}
	if _, serr := file.Seek(0, 0); serr != nil {
		return "", serr
	}
	_, rerr := out.ReadFrom(file)
	return strings.TrimSpace(out.String()), errors.Join(err, rerr)
}

// run is try for what has to work.
func (n *node) run(argv ...string) string {
	n.t.Helper()
	out, err := n.try(argv...)
	if err != nil {
		n.t.Fatalf("%s: %v\n%s\n%s", strings.Join(argv, " "), err, out, n.logs())
	}
	return out
}

// spawn starts a program that stays; it ends with stop, or with the node.
func (n *node) spawn(name string, argv ...string) *process {
	n.t.Helper()
	p := &process{name: name, log: n.path(name + ".log"), done: make(chan struct{})}
	file, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		n.t.Fatal(err)
	}
	defer file.Close()
	p.cmd = n.command(context.Background(), argv...)
	p.cmd.Stdout, p.cmd.Stderr = file, file
	// nsenter waits for the program it started, and hands no signal on: both are one group.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		n.t.Fatalf("start %s: %v", name, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }() // how it ended is in its log
	n.t.Cleanup(func() { p.stop(n.t, unix.SIGKILL) })
	return p
}

// stop ends a process, and waits until it has.
func (p *process) stop(t *testing.T, sig syscall.Signal) {
	t.Helper()
	_ = unix.Kill(-p.cmd.Process.Pid, sig) // gone already is good
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Errorf("%s does not end on %v", p.name, sig)
	}
}

// startDaemon starts bulkheadd and waits until it answers.
func (n *node) startDaemon() {
	n.t.Helper()
	n.daemon = n.spawn("bulkheadd", filepath.Join(programsDir(n.t), "bulkheadd"), "--config", n.path("bulkheadd.yaml"))
	client := api.NewClient(n.path("api.sock"))
	defer client.Close()
	n.eventually("bulkheadd to answer", func() error {
		_, err := client.Status(context.Background())
		return err
	})
}

func (n *node) stopDaemon() { n.t.Helper(); n.daemon.stop(n.t, unix.SIGTERM) }

// eventually waits until f is content.
func (n *node) eventually(what string, f func() error) {
	n.t.Helper()
	err := f()
	for deadline := time.Now().Add(patience); err != nil; err = f() {
		if time.Now().After(deadline) {
			n.t.Fatalf("waited %v for %s: %v\n%s", patience, what, err, n.logs())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// logs is the end of every process's log.
func (n *node) logs() string {
	var out strings.Builder
	files, _ := filepath.Glob(n.path("*.log"))
	for _, f := range files {
		data, _ := os.ReadFile(f)
		fmt.Fprintf(&out, "--- %s\n%s\n", filepath.Base(f), data[max(0, len(data)-3000):])
	}
	return out.String()
}
