package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"
)

// document is one document's text and the line on which it starts, from 1.
type document struct {
	text []byte
	line int
}

// split parts a file at lines that start with "---" (YAML 1.2.2, 9.1.4: such a line ends a document
// wherever it stands, in a block scalar too).
func split(data []byte) []document {
	var out []document
	current := document{line: 1}
	line := 0
	for len(data) > 0 {
		line++
		n := bytes.IndexByte(data, '\n') + 1
		if n == 0 {
			n = len(data)
		}
		text := data[:n]
		data = data[n:]
		if bytes.HasPrefix(text, []byte("---")) && (len(text) == 3 || bytes.ContainsRune([]byte(" \t\r\n"), rune(text[3]))) {
			out = append(out, current)
			current = document{line: line}
		}
		current.text = append(current.text, text...)
	}
	return append(out, current)
}

func (f *file) add(line, column int, format string, args ...any) {
	f.bad = append(f.bad, placed{line, max(column, 1), fmt.Sprintf(format, args...)})
}

func (f *file) errors() error {
	sort.SliceStable(f.bad, func(i, j int) bool {
		a, b := f.bad[i], f.bad[j]
		return a.line < b.line || a.line == b.line && a.column < b.column
	})
	var all []error
	for i, p := range f.bad {
		if i == maxErrors {
			all = append(all, fmt.Errorf("%s: and %d more errors", f.name, len(f.bad)-i))
			break
		}
		all = append(all, fmt.Errorf("%s:%d:%d: %s", f.name, p.line, p.column, p.what))
	}
	return errors.Join(all...)
}

func (f *file) document(d document) {
	if len(d.text) > maxDocument {
		f.add(d.line, 1, "document of %d bytes, bound %d", len(d.text), maxDocument)
		return
	}
	dec := yaml.NewDecoder(bytes.NewReader(d.text))
	for {
		var root yaml.Node
		err := dec.Decode(&root)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			f.syntax(d, err)
			return
		}
		if len(root.Content) > 0 {
			f.object(d, root.Content[0], string(d.text))
		}
	}
}

// syntax places an error of the YAML reader, which knows its line only, at the line's first letter.
func (f *file) syntax(d document, err error) {
	what := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if n, _ := fmt.Sscanf(what, "line %d: ", &line); n == 1 {
		_, what, _ = strings.Cut(what, ": ")
	}
	lines := strings.Split(string(d.text), "\n")
	line = min(max(line, 1), len(lines))
	column := len(lines[line-1]) - len(strings.TrimLeft(lines[line-1], " \t")) + 1
	f.add(d.line+line-1, column, "not YAML: %s", what)
}
