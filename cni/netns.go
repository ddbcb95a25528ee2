package cni

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"
)

// namespaceID tells two living namespaces apart. The kernel uses the numbers again after one is
// gone: it is for comparing now, not for remembering.
type namespaceID struct{ dev, ino uint64 }

// namespaceAt opens a path and makes sure that it is a network namespace.
func namespaceAt(path string) (namespaceID, error) {
	// Not to be caught by a FIFO somebody put there.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return namespaceID{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var fsys unix.Statfs_t
	if err := unix.Fstatfs(fd, &fsys); err != nil {
		return namespaceID{}, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	kind := 0
	if fsys.Type == unix.NSFS_MAGIC {
		kind, _ = unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	}
	if kind != unix.CLONE_NEWNET {
		return namespaceID{}, fmt.Errorf("%s: not a network namespace", path)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return namespaceID{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return namespaceID{dev: uint64(st.Dev), ino: st.Ino}, nil
}

// isHost says whether the namespace is this plugin's own, which is the runtime's and so the
// node's, or that of process 1. Rules for one container must never come to lie in those.
func isHost(id namespaceID) bool {
	for _, path := range []string{"/proc/thread-self/ns/net", "/proc/1/ns/net"} {
		if host, err := namespaceAt(path); err == nil && host == id {
			return true
		}
	}
	return false
}

// checkNetNS makes sure that ADD and CHECK speak of a container's namespace which the daemon finds
// at the same path.
func checkNetNS(path string) *types.Error {
	if !filepath.IsAbs(path) {
		return fail(types.ErrInvalidNetNS, nil, "CNI_NETNS %q: want an absolute path", path)
	}
	if clean := filepath.Clean(path); strings.HasPrefix(clean, "/proc/self/") || strings.HasPrefix(clean, "/proc/thread-self/") {
		return fail(types.ErrInvalidNetNS, nil, "CNI_NETNS %s: means something else in every process; give the path of a mounted namespace or /proc/PID/ns/net", path)
	}
	id, err := namespaceAt(path)
	if err != nil {
		return fail(types.ErrInvalidNetNS, err, "CNI_NETNS %s: no network namespace is there", path)
	}
	if isHost(id) {
		return fail(types.ErrInvalidNetNS, nil, "CNI_NETNS %s: this is the host's own namespace, which is no workload", path)
	}
	return nil
}
