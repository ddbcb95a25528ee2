package alert

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// File writes one JSON object a line, mode 0640, and rotates by size: path, path.1 (newer) to
// path.N. A line is written whole or not at all, also when the disk is full.
type File struct {
	path string
	max  int64 // bytes of one file
	keep int   // old files

	f    *os.File
	size int64
}

// OpenFile opens or makes the file at path. maxBytes is the size at which it is rotated (default
// 16 MiB), keep how many old ones stay (default 4; -1: none).
func OpenFile(path string, maxBytes int64, keep int) (*File, error) {
	if maxBytes <= 0 {
		maxBytes = 16 << 20
	}
	if keep == 0 {
		keep = 4
	}
	w := &File{path: path, max: maxBytes, keep: max(keep, 0)}
	return w, w.open()
}

// open opens the file and ends a line that a crash left unfinished.
func (w *File) open() error {
	f, err := os.OpenFile(w.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("open alert log: %w", err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return errors.Join(fmt.Errorf("open alert log %s: %w", w.path, err), f.Close())
	}
	w.f, w.size = f, size
	var last [1]byte
	if size > 0 {
		if _, err := f.ReadAt(last[:], size-1); err == nil && last[0] != '\n' {
			return w.write([]byte("\n"))
		}
	}
	return nil
}

// Send appends an alert. After an error the next Send tries again from the start.
func (w *File) Send(a Alert) error {
	line, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("alert log %s: %w", w.path, err)
	}
	if err := w.follow(); err != nil {
		return err
	}
	line = append(line, '\n')
	if w.size > 0 && w.size+int64(len(line)) > w.max {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	return w.write(line)
}

// follow reopens the file when somebody moved or removed it (logrotate, an operator).
func (w *File) follow() error {
	if w.f != nil {
		there, err := os.Stat(w.path)
		here, err2 := w.f.Stat()
		if err == nil && err2 == nil && os.SameFile(there, here) {
			w.size = here.Size()
			return nil
		}
		w.Close()
	}
	return w.open()
}

// write appends whole bytes or takes back what got written of them.
func (w *File) write(data []byte) error {
	n, err := w.f.Write(data)
	if err == nil {
		w.size += int64(n)
		return nil
	}
	err = fmt.Errorf("write alert log: %w; alerts go on in memory only", err)
	if n > 0 {
		err = errors.Join(err, w.f.Truncate(w.size))
	}
	return err
}

// rotate moves path to path.1, path.1 to path.2 and so on, and starts a new file.
func (w *File) rotate() error {
	w.Close()
	for i := w.keep; i >= 1; i-- {
		from := w.path
		if i > 1 {
			from = fmt.Sprintf("%s.%d", w.path, i-1)
		}
		if err := os.Rename(from, fmt.Sprintf("%s.%d", w.path, i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("rotate alert log: %w", err)
		}
	}
	if w.keep == 0 {
		if err := os.Remove(w.path); err != nil {
			return fmt.Errorf("rotate alert log: %w", err)
		}
	}
	return w.open()
}

// Close closes the file.
func (w *File) Close() error {
	if w.f == nil {
		return nil
	}
	err := w.f.Close()
	w.f = nil
	if err != nil {
		return fmt.Errorf("close alert log %s: %w", filepath.Clean(w.path), err)
	}
	return nil
}
