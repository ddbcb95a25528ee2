package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long a watched folder must be quiet before it is read: editors and tools write
	// a file in several steps.
	settle = 100 * time.Millisecond
	// settleLimit bounds the wait under a steady stream of writes.
	settleLimit = 2 * time.Second
	// folderSweep reads a folder although nothing was heard: an event may be lost, and a folder that
	// did not exist cannot be watched.
	folderSweep = 10 * time.Second
	// maxFolderFile bounds one file of a watched folder, in bytes (a dump of 10,000 pods has 40 MiB).
	maxFolderFile = 64 << 20
)

// folder is a watched folder of YAML files.
type folder struct {
	dir string
	log *slog.Logger
}

// files reads every *.yaml, *.yml and *.json of the folder, by name. Hidden files and editors'
// leftovers are none. A file that cannot be read is told of in errs and nil in the map, so that its
// last good version can stay. A folder that cannot be read is an error and says nothing about its
// files.
func (f folder) files() (files map[string][]byte, errs []error, err error) {
	if f.dir == "" {
		return nil, nil, nil
	}
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, nil, err
	}
	out := map[string][]byte{}
	for _, e := range entries {
		if !isManifest(e.Name()) {
			continue
		}
		path := filepath.Join(f.dir, e.Name())
		data, err := readBounded(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since, or a dangling link
		}
		if err != nil {
			errs = append(errs, err)
		}
		out[path] = data
	}
	return out, errs, nil
}

func isManifest(name string) bool {
	return !strings.HasPrefix(name, ".") && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

// readBounded reads a regular file; a fifo or a device would block or never end.
func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%s: is a folder; want a file", path)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: want a regular file", path)
	case info.Size() > maxFolderFile:
		return nil, fmt.Errorf("%s: %d bytes, bound %d; split it", path, info.Size(), maxFolderFile)
	}
	return os.ReadFile(path)
}

// watch calls reload after each change of the folder, and once in folderSweep, until ctx ends.
// reload must be cheap when nothing changed.
func (f folder) watch(ctx context.Context, reload func()) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", f.dir, err)
	}
	defer watcher.Close()
	sweep := time.NewTicker(folderSweep)
	defer sweep.Stop()
	var quiet <-chan time.Time
	var first time.Time
	watching := watcher.Add(f.dir) == nil
	if watching {
		quiet = time.After(0) // what changed between the first reading and the watch
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev := <-watcher.Events:
			if ev.Name == f.dir && ev.Has(fsnotify.Remove|fsnotify.Rename) {
				watching = false
			}
			if quiet == nil {
				first = time.Now()
			}
			quiet = time.After(min(settle, settleLimit-min(settleLimit, time.Since(first))))
		case err := <-watcher.Errors:
			f.log.Warn("folder events lost", "dir", f.dir, "err", err)
			quiet = time.After(settle)
		case <-quiet:
			quiet = nil
			reload()
		case <-sweep.C:
			if !watching {
				watching = watcher.Add(f.dir) == nil
			}
			reload()
		}
	}
}
