package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/kube"
	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/suite"
)

// offline is what files say, for commands that ask no daemon: policies, and who is who.
type offline struct {
	set     *policy.Set
	cluster *suite.Cluster
	tests   []suite.File
	notes   []string // what was left out of the files and why, with file:line
}

// readOffline reads policies, inventory and tests from the same files, in any mixture: Kubernetes
// manifests, policies of every kind, tests of policies, and what `bulkhead workloads -o json` prints.
// Nothing comes back unless all of it could be read. Errors: those of all files, joined, each with file:line.
func (a *app) readOffline(paths []string) (*offline, error) {
	files, err := a.readFilesOf(paths)
	if err != nil {
		return nil, err
	}
	return parseOffline(files)
}

// readFilesOf reads what commands without a daemon are given: a file that is not there is wrong input.
// What lies in a folder and is somebody else's is left out, and told.
func (a *app) readFilesOf(paths []string) ([]api.File, error) {
	files, err := a.readFiles(paths)
	if err != nil {
		return nil, badInput(err)
	}
	return slices.DeleteFunc(files, func(f api.File) bool {
		data := []byte(f.Data)
		if slices.Contains(paths, f.Name) || !kube.Foreign(data) || looksLikeExport(data) && importWorkloads(kube.NewReader(), f.Name, data) == nil {
			return false
		}
		fmt.Fprintf(a.err, "bulkhead: %s: JSON, and no Kubernetes object; left out\n", f.Name)
		return true
	}), nil
}

// current is the policies without the rules that have expired by now.
func (o *offline) current() *policy.Set { return o.set.At(time.Now()) }

func parseOffline(files []api.File) (*offline, error) {
	var policies []policy.Policy
	var tests []suite.File
	var errs []error
	in := kube.NewReader()
	for _, f := range files {
		data := []byte(f.Data)
		if looksLikeExport(data) {
			errs = append(errs, importWorkloads(in, f.Name, data))
			continue
		}
		holds := in.Add(f.Name, data)
		if holds.Tests {
			found, err := suite.Parse(f.Name, data)
			tests, errs = append(tests, found...), append(errs, err)
		}
		if !holds.Policies {
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
	view, err := inv.View()
	if err != nil {
		return nil, badInput(err)
	}
	return &offline{set: set, cluster: suite.NewCluster(view), tests: tests, notes: inv.Notes}, nil
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
