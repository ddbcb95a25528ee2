package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// maxFile bounds one policy file, in bytes, as the parser does, so that a wrong path never fills memory.
const maxFile = 16 << 20

// readFiles reads what -f names: files, folders (their .yaml, .yml and .json files, not those of
// folders in them), or - for standard input. Names in the result are what the user typed, so that
// a message's file:line:column can be clicked.
func (a *app) readFiles(paths []string) ([]api.File, error) {
	var files []api.File
	for _, path := range paths {
		names, err := expand(path)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			data, err := a.readFile(name)
			if err != nil {
				return nil, err
			}
			files = append(files, api.File{Name: name, Data: data})
		}
	}
	return files, nil
}

func expand(path string) ([]string, error) {
	if path == "-" {
		return []string{path}, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	var names []string
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".yaml", ".yml", ".json":
			if !e.IsDir() {
				names = append(names, filepath.Join(path, e.Name()))
			}
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("read policies: %s holds no .yaml, .yml or .json file", path)
	}
	sort.Strings(names)
	return names, nil
}

func (a *app) readFile(name string) (string, error) {
	from := a.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", fmt.Errorf("read policies: %w", err)
		}
		defer f.Close()
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, maxFile+1))
	if err != nil {
		return "", fmt.Errorf("read policies: %w", err)
	}
	if len(data) > maxFile {
		return "", fmt.Errorf("read policies: %s is larger than %d MiB; split it", name, maxFile>>20)
	}
	return string(data), nil
}
