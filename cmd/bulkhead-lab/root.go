package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// which are the flags that name a lab.
type which struct {
	name string
	dir  string
}

func root() *cobra.Command {
	w := &which{}
	cmd := &cobra.Command{
		Use:   "bulkhead-lab",
		Short: "A cluster on one machine, made of network namespaces",
		Long: `A cluster on one machine, made of network namespaces. Each node of the manifests is a namespace
with its own bulkheadd; each pod is one behind it, made by a real CNI chain and listening on its
container ports; every other address is a host of an outside network. Nothing of it touches the
machine's own network, and 'down' leaves nothing. Needs root.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	f := cmd.PersistentFlags()
	f.StringVar(&w.name, "name", os.Getenv("BULKHEAD_LAB"), "the lab's name (environment BULKHEAD_LAB; default: made of the working directory)")
	f.StringVar(&w.dir, "dir", "", "the lab's folder (default /run/bulkhead-lab/NAME)")
	cmd.AddCommand(up(w), execute(w), probe(w), nodes(w), status(w), down(w), agent(w), relay())
	return cmd
}

// derived is the name of labs made in this directory without one, so that two checkouts do not
// take each other's.
func derived() string {
	dir, err := os.Getwd()
	if err != nil {
		return "lab"
	}
	sum := sha256.Sum256([]byte(dir))
	return "lab" + hex.EncodeToString(sum[:3])
}

// fresh is a name for a new lab.
func (w *which) fresh() (string, error) {
	if w.name != "" {
		return w.name, nil
	}
	labs, err := lab.List()
	if err != nil {
		return "", err
	}
	name := derived()
	for i := 2; slices.Contains(labs, name); i++ {
		name = fmt.Sprintf("%s-%d", derived(), i)
	}
	return name, nil
}

// existing is the name or folder of the lab that the flags mean: without any, the one made in this
// directory, or the only one there is.
func (w *which) existing() (string, error) {
	if w.dir != "" {
		return w.dir, nil
	}
	if w.name != "" {
		return w.name, nil
	}
	labs, err := lab.List()
	if err != nil {
		return "", err
	}
	var here []string
	for _, name := range labs {
		if name == derived() || strings.HasPrefix(name, derived()+"-") {
			here = append(here, name)
		}
	}
	for _, list := range [][]string{here, labs} {
		if len(list) == 1 {
			return list[0], nil
		}
		if len(list) > 1 {
			return "", fmt.Errorf("several labs: %s; say which with --name", strings.Join(list, ", "))
		}
	}
	return "", fmt.Errorf("%w; make one with: bulkhead-lab up -f FILES", lab.ErrNoLab)
}

func (w *which) open() (*lab.Lab, error) {
	name, err := w.existing()
	if err != nil {
		return nil, err
	}
	return lab.Open(name)
}
