package firewall

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ownNamespacePath is the namespace of the thread that opens it. Not /proc/self/ns/net: that is the
// main thread's, and the main thread may be inside a workload's namespace at that very moment.
const ownNamespacePath = "/proc/thread-self/ns/net"

// OpenNamespace opens a network namespace by path, for example /run/netns/cart or
// /proc/4121/ns/net. Whoever holds the file holds the namespace: close it.
//
// Anything that is no namespace file (a pipe, a regular file left behind after an unmount) is an
// error at once; opening never blocks.
func OpenNamespace(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open network namespace %s: not a network namespace", path)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Enter runs f on a thread that is inside the network namespace at path and returns f's error.
// Sockets that f opens belong to that namespace for ever and may be used from anywhere.
//
// f must not start goroutines that expect the namespace, and must not unlock its thread.
func Enter(path string, f func() error) error {
	target, err := OpenNamespace(path)
	if err != nil {
		return err
	}
	defer target.Close()
	return EnterFile(target, f)
}

// EnterFile is [Enter] for a namespace that is open already.
func EnterFile(target *os.File, f func() error) error {
	done := make(chan error, 1)
	// A fresh goroutine: the caller's own thread stays out of this, and can be locked by it.
	go enterOn(target, f, done)
	return <-done
}

// enterOn does the work of EnterFile on its own goroutine.
func enterOn(target *os.File, f func() error, done chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// Not on the main thread: /proc/PID/ns/net is its namespace, and if the way back failed it
		// would stand in a workload's for ever. While we hold it, another goroutine gets another.
		defer runtime.UnlockOSThread()
		other := make(chan error, 1)
		go enterOn(target, f, other)
		done <- <-other
		return
	}
	err := fmt.Errorf("inside network namespace %s: the function ended its goroutine", target.Name())
	defer func() { done <- err }()
	home, openErr := os.Open(ownNamespacePath)
	if openErr != nil {
		runtime.UnlockOSThread() // nothing was changed yet
		err = fmt.Errorf("open own network namespace: %w", openErr)
		return
	}
	defer home.Close()
	if setErr := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); setErr != nil {
		runtime.UnlockOSThread()
		err = fmt.Errorf("enter network namespace %s: %w", target.Name(), setErr)
		return
	}
	defer func() {
		if backErr := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); backErr != nil {
			// Still locked: the thread dies with this goroutine, and no other goroutine can ever
			// run in the wrong namespace.
			err = errors.Join(err, fmt.Errorf("leave network namespace %s: %w", target.Name(), backErr))
			return
		}
		runtime.UnlockOSThread()
	}()
	err = f()
}

// SameNamespace says whether two paths are the same network namespace now. To tell whether a path
// is still the namespace that it was earlier, keep its [Cookie]: device and inode are reused.
func SameNamespace(a, b string) (bool, error) {
	fa, err := OpenNamespace(a)
	if err != nil {
		return false, err
	}
	defer fa.Close()
	fb, err := OpenNamespace(b)
	if err != nil {
		return false, err
	}
	defer fb.Close()
	return sameFile(fa, fb)
}

// IsOwnNamespace says whether path is the network namespace that this process itself runs in: a
// workload on the host's network, which has no rules of its own and must not get any.
func IsOwnNamespace(path string) (bool, error) {
	f, err := OpenNamespace(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	type answer struct {
		same bool
		err  error
	}
	done := make(chan answer, 1)
	// A fresh goroutine is never on a thread that a caller moved to another namespace.
	go func() {
		own, err := os.Open(ownNamespacePath)
		if err != nil {
			done <- answer{err: fmt.Errorf("open own network namespace: %w", err)}
			return
		}
		defer own.Close()
		same, err := sameFile(f, own)
		done <- answer{same, err}
	}()
	a := <-done
	return a.same, a.err
}

// sameFile compares device and inode of two open files, which is exact while both are held open.
func sameFile(a, b *os.File) (bool, error) {
	ia, err := a.Stat()
	if err != nil {
		return false, fmt.Errorf("compare network namespaces: %w", err)
	}
	ib, err := b.Stat()
	if err != nil {
		return false, fmt.Errorf("compare network namespaces: %w", err)
	}
	return os.SameFile(ia, ib), nil
}
