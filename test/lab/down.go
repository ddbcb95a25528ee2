package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Down ends the lab's processes and removes its namespaces and files. Whatever is gone already is
// no error, so it may be called twice.
func (l *Lab) Down() error {
	l.agent.close()
	err := remove(l.State)
	l.wg.Wait()
	return err
}

// Down takes a lab down by its name or folder, also one that was never finished or whose state is
// damaged. One that is not there is no error.
func Down(name string) error {
	dir, short := name, filepath.Base(name)
	if nameOK.MatchString(name) {
		dir = filepath.Join(root, name)
	}
	s, err := readState(dir)
	if err == nil {
		return remove(s)
	}
	if !nameOK.MatchString(short) {
		return err
	}
	// Without its state, what remains of a lab is known by name.
	if target, err := os.Readlink(dir); err == nil {
		dir = target
	}
	return remove(&State{Name: short, Dir: dir})
}

func remove(s *State) error {
	names := s.namespaces()
	if s.LAN == "" {
		names = leftovers(s.Name)
	}
	errs := []error{stopAll(s, names)}
	for _, name := range names {
		errs = append(errs, removeNamespace(name))
	}
	// A daemon that was killed while it wrote may leave a file behind the first sweep.
	err := os.RemoveAll(s.Dir)
	if err != nil {
		time.Sleep(100 * time.Millisecond)
		err = os.RemoveAll(s.Dir)
	}
	errs = append(errs, err)
	if link := filepath.Join(root, s.Name); link != s.Dir {
		if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := os.Remove(root); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// stopAll ends the recorded processes, then whatever else runs in the lab's namespaces, until
// nothing is found: a process may start another while it is looked for.
func stopAll(s *State, names []string) error {
	inodes := map[uint64]bool{}
	host, err := inode("/proc/self/ns/net")
	if err != nil {
		return err
	}
	for _, name := range names {
		// An empty file, left by a namespace that was never mounted, has an inode of another file
		// system; it names no process's namespace.
		if ino, err := inode(nsPath(name)); err == nil && ino != host && mounted(nsPath(name)) {
			inodes[ino] = true
		}
	}
	for range 5 {
		pids := inside(inodes)
		for pid := range recorded(s.Dir) {
			if !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
		if len(pids) == 0 {
			return nil
		}
		if err := end(pids); err != nil {
			return fmt.Errorf("lab %s: %w", s.Name, err)
		}
	}
	return nil
}

// mounted says whether a path is a namespace (of file system nsfs) and not the empty file below.
func mounted(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// leftovers lists namespaces in /run/netns by the lab's prefix, without those of other labs whose
// names begin alike.
func leftovers(name string) []string {
	others := map[string]bool{}
	labs, _ := List() // none: nothing to spare
	for _, other := range labs {
		if s, err := readState(filepath.Join(root, other)); err == nil && other != name {
			for _, ns := range s.namespaces() {
				others[ns] = true
			}
		}
	}
	entries, err := os.ReadDir(nsDir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "bh"+name+"-") && !others[e.Name()] {
			out = append(out, e.Name())
		}
	}
	return out
}
