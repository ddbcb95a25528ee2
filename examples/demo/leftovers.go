package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// before is what the machine's own namespace held when the demo began: none of it is ours.
type before map[string]bool

// snapshot lists links and nftables tables of the machine's own namespace, which nobody should
// change while a demo or another lab runs.
func snapshot() (before, error) {
	all := before{}
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		all["link "+l.Name] = true
	}
	out, err := exec.Command("nft", "list", "tables").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("nft list tables: %w: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		all[strings.TrimSpace(line)] = true
	}
	return all, nil
}

// leftovers lists what is still there of this demo: new links and tables, namespaces and files of
// its lab, its folder, processes that were started with either. Other labs of the machine, which
// may come and go meanwhile, are theirs.
func (b before) leftovers(labName, labDir, dir string) ([]string, error) {
	var left []string
	after, err := snapshot()
	if err != nil {
		return nil, err
	}
	for name := range after {
		if !b[name] {
			left = append(left, name)
		}
	}
	for _, pattern := range []string{"/run/netns/bh" + labName + "-*", labDir, filepath.Join("/run/bulkhead-lab", labName), dir} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		left = append(left, found...)
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	for _, file := range commands {
		line, err := os.ReadFile(file)
		pid := filepath.Base(filepath.Dir(file))
		if err == nil && pid != strconv.Itoa(os.Getpid()) && (bytes.Contains(line, []byte(dir)) || bytes.Contains(line, []byte(labDir+"/"))) {
			left = append(left, "process "+pid)
		}
	}
	slices.Sort(left)
	return slices.Compact(left), nil
}
