package daemon

import (
	"errors"
	"maps"
	"slices"
	"testing"
)

func parseWord(name string, data []byte) (string, error) {
	if string(data) == "bad" {
		return "", errors.New(name + ":1:1: bad")
	}
	return string(data), nil
}

// TestLastGood: each step is a folder as it is found, and what then holds.
func TestLastGood(t *testing.T) {
	l := restore(map[string][]byte{"a": []byte("old"), "b": []byte("bad")}, parseWord)
	for _, step := range []struct {
		name    string
		files   map[string][]byte
		holds   map[string]string
		errs    []string
		changed bool
	}{
		{"broken while nobody looked", map[string][]byte{"a": []byte("bad")}, map[string]string{"a": "old"}, []string{"a:1:1: bad"}, false},
		{"still broken", map[string][]byte{"a": []byte("bad")}, map[string]string{"a": "old"}, []string{"a:1:1: bad"}, false},
		{"repaired, and one more", map[string][]byte{"a": []byte("new"), "b": []byte("b")}, map[string]string{"a": "new", "b": "b"}, nil, true},
		{"unchanged", map[string][]byte{"a": []byte("new"), "b": []byte("b")}, map[string]string{"a": "new", "b": "b"}, nil, false},
		{"unreadable", map[string][]byte{"a": nil, "b": []byte("b")}, map[string]string{"a": "new", "b": "b"}, nil, false},
		{"new and broken", map[string][]byte{"a": []byte("new"), "b": []byte("b"), "c": []byte("bad")},
			map[string]string{"a": "new", "b": "b"}, []string{"c:1:1: bad"}, false},
		{"broken one removed", map[string][]byte{"a": []byte("new"), "b": []byte("b")}, map[string]string{"a": "new", "b": "b"}, nil, false},
		{"removed", map[string][]byte{"b": []byte("b")}, map[string]string{"b": "b"}, nil, true},
	} {
		next, changed := l.read(step.files, parseWord)
		holds := map[string]string{}
		for path, f := range next.good {
			holds[path] = f.value
		}
		if !maps.Equal(holds, step.holds) || !slices.Equal(next.errors(), step.errs) || changed != step.changed {
			t.Errorf("%s: holds %v, errors %v, changed %v", step.name, holds, next.errors(), changed)
		}
		l = next
	}
	next, _ := l.read(map[string][]byte{"b": []byte("b2"), "d": []byte("d")}, parseWord)
	next.refuse("b", l, errors.New("b: conflict"))
	next.refuse("d", l, errors.New("d: conflict"))
	if next.good["b"].value != "b" || len(next.good) != 1 || len(next.bad) != 2 {
		t.Errorf("refused after parsing: %+v", next)
	}
}
