package lab

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// As says with which capabilities a program runs in a pod.
type As string

const (
	User  As = "user"  // uid 65534, no capability
	Raw   As = "raw"   // root with CAP_NET_RAW alone: what most runtimes give by default
	Admin As = "admin" // root with CAP_NET_RAW and CAP_NET_ADMIN
)

func (a As) capabilities() ([]int, error) {
	switch a {
	case User, "":
		return nil, nil
	case Raw:
		return []int{unix.CAP_NET_RAW}, nil
	case Admin:
		return []int{unix.CAP_NET_RAW, unix.CAP_NET_ADMIN}, nil
	}
	return nil, fmt.Errorf("as %q: want user, raw or admin", string(a))
}

// nobody is the uid and gid of As User.
const nobody = 65534

// Become turns the calling process into argv inside of a pod: its network namespace, a mount
// namespace with the pod's /etc/resolv.conf and a /sys that shows its interfaces, and the
// capabilities asked for. Where may also be a node's name, or "outside". It returns only errors.
func (s *State) Become(where string, as As, argv []string) error {
	caps, err := as.capabilities()
	if err != nil {
		return err
	}
	netns, resolv, err := s.where(where)
	if err != nil {
		return err
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	// Opened before rights are dropped: a program in a folder of root's alone can be run all the same.
	program, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	runtime.LockOSThread() // everything below is this thread's; execve makes it the process's
	if err := enter(nsPath(netns)); err != nil {
		return err
	}
	if err := privateMounts(resolv); err != nil {
		return err
	}
	if err := dropTo(as, caps); err != nil {
		return err
	}
	err = syscall.Exec(path, argv, os.Environ())
	if errors.Is(err, unix.EACCES) {
		err = execAt(program, argv, os.Environ())
	}
	return fmt.Errorf("%s: %w", path, err)
}

// where finds a pod, a node or the outside network, and the resolv.conf that holds there.
func (s *State) where(name string) (netns, resolv string, err error) {
	if p := s.pod(name); p != nil {
		return p.NetNS, filepath.Join(s.node(p.Node).Dir, "resolv.conf"), nil
	}
	if n := s.node(name); n != nil {
		return n.NetNS, "", nil
	}
	if name == "outside" {
		return s.Outside.NetNS, "", nil
	}
	return "", "", fmt.Errorf("pod %s: not in lab %s", name, s.Name)
}

// privateMounts gives the calling thread mounts of its own. What is unmounted outside goes here too
// (slave), so that a program left running holds none of the lab's namespaces.
func privateMounts(resolv string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	// A new sysfs shows the network namespace of whoever mounts it.
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	target, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if resolv == "" || err != nil {
		return nil // nothing to put, or no file to put it on
	}
	if err := unix.Mount(resolv, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}

// dropTo leaves the calling thread with the capabilities in caps and no way to get others.
func dropTo(as As, caps []int) error {
	keep := map[int]bool{}
	var mask uint64
	for _, c := range caps {
		keep[c], mask = true, mask|1<<c
	}
	for c := range 64 {
		if keep[c] {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop capability %d: %w", c, err) // EINVAL: the kernel has no such one
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if as != Raw && as != Admin {
		// Straight system calls: package syscall's would change every thread, and only this one counts.
		if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); e != 0 {
			return fmt.Errorf("setgroups: %w", e)
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, nobody, nobody, nobody); e != 0 {
			return fmt.Errorf("setresgid: %w", e)
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); e != 0 {
			return fmt.Errorf("setresuid: %w", e)
		}
	}
	low, high := uint32(mask), uint32(mask>>32)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: low, Permitted: low, Inheritable: low},
		{Effective: high, Permitted: high, Inheritable: high},
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}

// execAt runs a program by its open descriptor (execveat(2), AT_EMPTY_PATH).
func execAt(fd int, argv, env []string) error {
	path, err := unix.BytePtrFromString("")
	if err != nil {
		return err
	}
	argp, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return err
	}
	envp, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return err
	}
	_, _, e := unix.Syscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&argp[0])),
		uintptr(unsafe.Pointer(&envp[0])), unix.AT_EMPTY_PATH, 0)
	return e
}

// Process is a program that Start runs in a pod.
type Process struct {
	*exec.Cmd
	done chan struct{} // closed when it has ended and err is set
	err  error
}

// Wait waits for the end and gives what exec.Cmd's Wait gave. It may be called any number of times.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Stop ends the program and its session, SIGKILL, and waits.
func (p *Process) Stop() {
	_ = unix.Kill(-p.Process.Pid, unix.SIGKILL) // ESRCH: it has ended
	<-p.done
}

// Command is the command that runs argv in a pod (see [State.Become]), for callers that want to set
// streams or environment before they start it themselves.
func (l *Lab) Command(ctx context.Context, where string, as As, argv ...string) *exec.Cmd {
	args := append([]string{"exec", "--dir", l.Dir, "--as", string(cmp.Or(as, User)), where, "--"}, argv...)
	return exec.CommandContext(ctx, filepath.Join(l.Bin, "bulkhead-lab"), args...)
}

// Exec runs argv in a pod and gives its output, stdout and stderr together. An exit code other
// than 0 is an *exec.ExitError.
func (l *Lab) Exec(ctx context.Context, where string, as As, argv ...string) (string, error) {
	cmd := l.Command(ctx, where, as, argv...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s: %s: %w", where, strings.Join(argv, " "), err)
	}
	return out.String(), err
}

// Start runs argv in a pod until it ends, Stop is called, or the lab goes down. Its output goes to
// out; nil drops it.
func (l *Lab) Start(where string, as As, out io.Writer, argv ...string) (*Process, error) {
	cmd := l.Command(context.Background(), where, as, argv...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", where, strings.Join(argv, " "), err)
	}
	p := &Process{Cmd: cmd, done: make(chan struct{})}
	pid := cmd.Process.Pid
	if err := l.record(pid, where+": "+strings.Join(argv, " ")); err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	l.wg.Add(1)
	go func() { // ends with the process, at the latest in Down
		defer l.wg.Done()
		p.err = cmd.Wait()
		l.forget(pid)
		close(p.done)
	}()
	return p, nil
}
