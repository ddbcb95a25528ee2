package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxSocketPath is what sun_path holds without its NUL (unix(7)), less the ending of the temporary
// name under which the socket is made.
const maxSocketPath = 107 - len(socketTemp)

const (
	socketMode = 0o660
	socketTemp = ".new"
	lockSuffix = ".lock"
)

// lock takes the lock beside the socket, so that one daemon owns a socket for as long as it lives;
// the kernel lets go when it dies. The file holds the owner's pid, for the message below.
func lock(socket string) (*os.File, error) {
	path := socket + lockSuffix
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("own %s: %w", socket, err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			pid := make([]byte, 16)
			n, _ := f.Read(pid)
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("own %s: held by pid %s; stop the other daemon", socket, strings.TrimSpace(string(pid[:n])))
			}
			return nil, fmt.Errorf("own %s: lock %s: %w", socket, path, err)
		}
		// The former owner removes the file before it lets go: what we locked may be off the disk.
		if ours, err := f.Stat(); err == nil {
			if now, err := os.Stat(path); err == nil && os.SameFile(ours, now) {
				// The pid only serves the message above: a full disk must not keep the daemon down.
				f.Truncate(0)
				fmt.Fprintf(f, "%d\n", os.Getpid())
				return f, nil
			}
		}
		f.Close()
	}
}

// listen makes the socket, with its mode and group set before it has its name, in place of one
// that a dead daemon left. The caller holds the lock.
func listen(socket string, gid int) (*net.UnixListener, error) {
	if err := stale(socket); err != nil {
		return nil, err
	}
	temp := socket + socketTemp
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", socket, err)
	}
	l.SetUnlinkOnClose(false) // it would take away a name that may be another's by then
	err = os.Chmod(temp, socketMode)
	if err == nil && gid > 0 {
		err = os.Chown(temp, -1, gid)
	}
	if err == nil {
		err = os.Rename(temp, socket)
	}
	if err != nil {
		l.Close()
		os.Remove(temp)
		return nil, fmt.Errorf("listen on %s: %w", socket, err)
	}
	return l, nil
}

// stale says why the path may not be taken: it is no socket, or somebody without our lock answers.
func stale(socket string) error {
	fi, err := os.Lstat(socket)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("own %s: %w", socket, err)
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("own %s: there is something that is not a socket; move it away, or name another socket", socket)
	}
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("own %s: another process answers there; stop it", socket)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("own %s: %w", socket, err)
	}
	return nil
}

// checkPath refuses what the kernel would refuse later or cut short.
func checkPath(socket string) error {
	if !filepath.IsAbs(socket) {
		return fmt.Errorf("socket %q: want an absolute path", socket)
	}
	if len(socket) > maxSocketPath {
		return fmt.Errorf("socket %s: %d bytes, at most %d", socket, len(socket), maxSocketPath)
	}
	return nil
}
