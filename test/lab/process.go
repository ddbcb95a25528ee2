package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A process of the lab is known by its pid and the time it was started, in clock ticks since boot:
// a pid alone may be someone else's by the time of down. Each is a file in the lab's pids folder.

// startTime is field 22 of /proc/PID/stat (proc_pid_stat(5)). The name before it may hold anything,
// so fields are counted from its last parenthesis.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return "", os.ErrProcessDone
	}
	return fields[19], nil
}

// record notes a process as the lab's.
func (s *State) record(pid int, what string) error {
	start, err := startTime(pid)
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, os.ErrNotExist) {
		return nil // over already
	}
	if err != nil {
		return err
	}
	dir := filepath.Join(s.Dir, "pids")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, strconv.Itoa(pid)), []byte(start+" "+what+"\n"), 0o644)
}

// forget removes the note of a process that has ended.
func (s *State) forget(pid int) {
	_ = os.Remove(filepath.Join(s.Dir, "pids", strconv.Itoa(pid))) // down clears the folder anyway
}

// recorded lists the lab's own processes that still run, with what they are.
func recorded(dir string) map[int]string {
	out := map[int]string{}
	entries, err := os.ReadDir(filepath.Join(dir, "pids"))
	if err != nil {
		return out
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, "pids", e.Name()))
		if err != nil {
			continue
		}
		start, what, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
		if now, err := startTime(pid); err == nil && now == start {
			out[pid] = what
		}
	}
	return out
}

// inside lists processes whose network namespace is one of the lab's: nothing else can have got
// there. The lab's own namespaces are given by inode.
func inside(inodes map[uint64]bool) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if ino, err := inode(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil && inodes[ino] {
			out = append(out, pid)
		}
	}
	return out
}

// end asks processes to end, gives them a second, and kills what is left; it returns when all are
// gone. Zombies count as gone: their parent reaps them.
func end(pids []int) error {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		for _, pid := range pids {
			_ = unix.Kill(pid, sig)          // ESRCH: it ended meanwhile
			_ = unix.Kill(pid, unix.SIGCONT) // a frozen one hears nothing before
		}
		for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			var left []int
			for _, pid := range pids {
				if _, err := startTime(pid); err == nil {
					left = append(left, pid)
				}
			}
			if pids = left; len(pids) == 0 {
				return nil
			}
		}
	}
	return fmt.Errorf("processes %v: still there after SIGKILL", pids)
}

// start runs a program in a namespace, in a session of its own, with its output in a log file.
func (s *State) start(ns, what, log string, argv ...string) (*exec.Cmd, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	run := cmd.Start
	if ns != "" {
		run = func() error { return within(nsPath(ns), cmd.Start) }
	}
	if err := run(); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return cmd, s.record(cmd.Process.Pid, what)
}

// tail is the end of a log, for an error that must say why a program does not come up.
func tail(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	if len(b) > 2000 {
		b = b[len(b)-2000:]
	}
	return strings.TrimSpace(string(b))
}
