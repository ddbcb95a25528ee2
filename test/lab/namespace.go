package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// nsDir is where ip-netns(8) keeps names of namespaces; ours are there so that `ip netns exec`
// works on them.
const nsDir = "/run/netns"

func nsPath(name string) string { return filepath.Join(nsDir, name) }

// within runs fn on a thread of its own inside of a network namespace. What fn starts as a process
// begins in that namespace too; sockets it opens stay there. The thread ends with fn: one that
// could not be led back must never be used again, and a new one costs some 50 µs.
func within(path string, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := enter(path); err != nil {
			done <- err
			return
		}
		done <- fn()
	}()
	return <-done
}

// enter moves the calling thread, which must be locked, into a network namespace.
func enter(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", path, err)
	}
	return nil
}

// makeNamespace makes a network namespace with loopback up and the given settings, as
// `ip netns add` does. Settings are paths below /proc/sys/net.
func makeNamespace(name string, settings map[string]string) error {
	path := nsPath(name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("namespace %s: %w", name, err)
	}
	f.Close()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, as in within
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("namespace %s: unshare: %w", name, err)
			return
		}
		if err := loopbackUp(); err != nil {
			done <- fmt.Errorf("namespace %s: lo: %w", name, err)
			return
		}
		for key, value := range settings {
			if err := setSysctl(key, value); err != nil {
				done <- fmt.Errorf("namespace %s: %w", name, err)
				return
			}
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "none", unix.MS_BIND, ""); err != nil {
			done <- fmt.Errorf("namespace %s: mount: %w", name, err)
			return
		}
		done <- nil
	}()
	if err := <-done; err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// loopbackUp brings lo up in the calling thread's namespace.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// setSysctl writes below /proc/sys/net, which shows the calling thread's namespace.
func setSysctl(key, value string) error {
	if err := os.WriteFile(filepath.Join("/proc/sys/net", key), []byte(value), 0); err != nil {
		return fmt.Errorf("sysctl %s=%s: %w", strings.ReplaceAll(key, "/", "."), value, err)
	}
	return nil
}

// removeNamespace unmounts and removes a name. The namespace itself ends when its last process and
// descriptor are gone. A name that is not there is no error.
func removeNamespace(name string) error {
	if name == "" { // would be the folder itself
		return nil
	}
	path := nsPath(name)
	for {
		err := unix.Unmount(path, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // nothing mounted
			break
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// prepareNamespaceDir makes /run/netns a shared mount, as ip-netns(8) does at its first use. A later
// `ip netns add` would otherwise do so over our mounts and keep a second copy of each.
func prepareNamespaceDir() error {
	if err := os.MkdirAll(nsDir, 0o755); err != nil {
		return err
	}
	d, err := os.Open(nsDir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil { // against ourselves and iproute2
		return err
	}
	err = unix.Mount("", nsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) { // no mount yet
		if err := unix.Mount(nsDir, nsDir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s: %w", nsDir, err)
		}
		err = unix.Mount("", nsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	}
	if err != nil {
		return fmt.Errorf("share %s: %w", nsDir, err)
	}
	return nil
}

// inode tells which namespace a path stands for, as long as it exists.
func inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}
