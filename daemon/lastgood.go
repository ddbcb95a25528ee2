package daemon

import (
	"bytes"
	"maps"
	"slices"
)

// lastGood is what a watched folder's files hold, each as it was when it was last good: a file that
// somebody breaks changes nothing in force. It is a value: read gives the next one, and the caller
// takes it when everything else agreed.
type lastGood[T any] struct {
	good map[string]goodFile[T] // by path
	bad  map[string]badFile     // files whose present text is refused
}

type goodFile[T any] struct {
	data  []byte
	value T
}

type badFile struct {
	data []byte
	err  error
}

// read takes the folder's present files and parses those that are not known yet. A nil text means
// that a file is there and could not be read: its last good version stays.
func (l lastGood[T]) read(files map[string][]byte, parse func(name string, data []byte) (T, error)) (next lastGood[T], changed bool) {
	next = lastGood[T]{good: map[string]goodFile[T]{}, bad: map[string]badFile{}}
	for path, data := range files {
		old, known := l.good[path]
		if known {
			next.good[path] = old
		}
		if was, refused := l.bad[path]; refused && bytes.Equal(was.data, data) {
			next.bad[path] = was
			continue
		}
		if data == nil || known && bytes.Equal(old.data, data) {
			continue
		}
		value, err := parse(path, data)
		if err != nil {
			next.bad[path] = badFile{data, err}
			continue
		}
		next.good[path] = goodFile[T]{data, value}
		changed = true
	}
	for path := range l.good {
		if _, still := files[path]; !still {
			changed = true
		}
	}
	return next, changed
}

// refuse puts the last good version of a file back, or takes the file out where it has none.
func (l lastGood[T]) refuse(path string, before lastGood[T], err error) {
	l.bad[path] = badFile{l.good[path].data, err}
	if old, known := before.good[path]; known {
		l.good[path] = old
	} else {
		delete(l.good, path)
	}
}

// paths lists the good files, sorted: what comes later in it gives way.
func (l lastGood[T]) paths() []string { return slices.Sorted(maps.Keys(l.good)) }

// errors lists what is refused, by file.
func (l lastGood[T]) errors() []string {
	var out []string
	for _, path := range slices.Sorted(maps.Keys(l.bad)) {
		out = append(out, l.bad[path].err.Error())
	}
	return out
}

// texts gives the text of every good file, for the store.
func (l lastGood[T]) texts() map[string][]byte {
	out := map[string][]byte{}
	for path, f := range l.good {
		out[path] = f.data
	}
	return out
}

// restore takes texts that were good once, from the store. One that no longer parses is left out:
// its file will say so.
func restore[T any](texts map[string][]byte, parse func(name string, data []byte) (T, error)) lastGood[T] {
	l, _ := lastGood[T]{}.read(texts, parse)
	l.bad = map[string]badFile{}
	return l
}
