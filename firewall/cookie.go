package firewall

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Cookie returns the number that the kernel gives to a network namespace once and never again
// while the machine is up. Two workloads that got the same path, or the same inode, one after the
// other have different cookies; after a reboot all are new.
//
// Source: SO_NETNS_COOKIE, socket(7), kernel 5.14.
func Cookie(path string) (uint64, error) {
	f, err := OpenNamespace(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return CookieFile(f)
}

// CookieFile is [Cookie] for a namespace that is open already.
func CookieFile(f *os.File) (uint64, error) {
	var cookie uint64
	err := EnterFile(f, func() error {
		// A unix socket: the one family that every kernel and every sandbox has.
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open socket: %w", err)
		}
		defer unix.Close(fd)
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		return err
	})
	if errors.Is(err, unix.ENOPROTOOPT) {
		return 0, fmt.Errorf("cookie of network namespace %s: %w; it needs kernel 5.14 or newer", f.Name(), err)
	}
	if err != nil {
		return 0, fmt.Errorf("cookie of network namespace %s: %w", f.Name(), err)
	}
	return cookie, nil
}
