package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/kube"
	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/suite"
)

// offline is what files say, for commands that ask no daemon: policies, and who is who.
type offline struct {
	set     *policy.Set
	cluster *suite.Cluster
	notes   []string // what was left out of the files and why, with file:line
}

// readOffline reads policies and inventory from the same files, in any mixture: Kubernetes manifests,
// policies of every kind, and what `bulkhead workloads -o json` prints. Nothing comes back unless all
// of it could be read. Errors: those of all files, joined, each with file:line.
func (a *app) readOffline(paths []string) (*offline, error) {
	files, err := a.readFiles(paths)
	if err != nil {
		return nil, badInput(err)
	}
	var policies []policy.Policy
	var errs []error
	in := kube.NewReader()
	for _, f := range files {
		data := []byte(f.Data)
		if looksLikeExport(data) {
			errs = append(errs, importWorkloads(in, f.Name, data))
			continue
		}
		if !in.Add(f.Name, data) {
			continue
		}
		list, err := policy.ParseAmong(f.Name, data)
		policies = append(policies, list...)
		errs = append(errs, err)
	}
	inv, err := in.Inventory()
	if err := join(append(errs, err)); err != nil {
		return nil, badInput(err)
	}
	set, err := policy.NewSet(policies...)
	if err != nil {
		return nil, badInput(err)
	}
	view, err := viewOf(inv)
	if err != nil {
		return nil, badInput(err)
	}
	return &offline{set: set, cluster: suite.NewCluster(view), notes: inv.Notes}, nil
}

// badInput gives an error of the input the exit code that says so.
func badInput(err error) error { return &codeError{exitUsage, err} }

// join drops sentences that were said already: both readers of a file find its broken YAML.
func join(errs []error) error {
	said := map[string]bool{}
	var out []error
	for _, text := range sentences(errors.Join(errs...)) {
		if !said[text] {
			said[text] = true
			out = append(out, errors.New(text))
		}
	}
	return errors.Join(out...)
}

// viewOf makes the picture that an inventory gives, with upstream's built-in rules: the node may talk
// to its own pods, and DNS has no rule of its own. Nodes and pods without an address get some, as the
// lab gives them. Errors: two running pods with one address.
func viewOf(inv *kube.Inventory) (*identity.View, error) {
	if err := inv.Complete(); err != nil {
		return nil, err
	}
	ix := identity.NewIndex("")
	ix.SetBuiltIns(true, false)
	ix.SetNamespaceLabels(inv.Namespaces)
	ix.SetNodes(inv.Nodes)
	ix.SetServices(inv.Services)
	for i := range inv.Services {
		if s := &inv.Services[i]; s.Namespace == "kube-system" && slices.Contains(dnsServices, s.Name) {
			ix.SetResolvers(s.Addrs)
		}
	}
	for _, w := range inv.Workloads {
		ix.Upsert(w)
	}
	if n := ix.Refused(); n > 0 {
		return nil, fmt.Errorf("inventory: %d workloads, addresses or Services are beyond what is read of one cluster", n)
	}
	return ix.View(), nil
}

// dnsServices are the names under which clusters run their resolver.
var dnsServices = []string{"kube-dns", "coredns", "rke2-coredns-rke2-coredns"}
