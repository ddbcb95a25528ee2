package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy/suite"
)

// besidePolicies is --with-evidence without a file.
const besidePolicies = "beside"

// evidence makes tests of what the daemon saw for policies that it generated, and gives the workloads
// that they were made of.
func (a *app) evidence(ctx context.Context, policies string) (tests, workloads []byte, err error) {
	g, err := a.client().Graph(ctx)
	if err != nil {
		return nil, nil, err
	}
	list, err := a.client().Workloads(ctx)
	if err != nil {
		return nil, nil, err
	}
	if workloads, err = json.MarshalIndent(known(list), "", "  "); err != nil {
		return nil, nil, err
	}
	off, err := parseOffline([]api.File{{Name: "generated policies", Data: policies}, {Name: "workloads", Data: string(workloads)}})
	if err != nil {
		return nil, nil, err
	}
	set := off.current()
	f, leftOut := suite.FromEvidence("evidence", seenBy(off, g.Edges), off.cluster, set)
	comment := []string{"Made of what was seen: allowed is what was, denied what no evidence covers.", "bulkhead policy test holds policies against it."}
	for _, line := range leftOut {
		comment = append(comment, "Left out: "+line)
	}
	return f.Marshal(comment), append(workloads, '\n'), nil
}

// known is the workloads without what changes from one moment to the next, so that the file changes only
// when they do.
func known(list []api.Workload) []api.Workload {
	out := make([]api.Workload, len(list))
	for i, w := range list {
		out[i] = api.Workload{
			ID: w.ID, Namespace: w.Namespace, Name: w.Name, Service: w.Service, Node: w.Node, Addrs: w.Addrs, Labels: w.Labels,
			NamespaceLabels: w.NamespaceLabels, Ports: w.Ports, HostNetwork: w.HostNetwork,
		}
	}
	return out
}

// seenBy lists the allowed edges that policies were made of: not those with the node or the resolvers,
// which need no policy, and not those of whom nobody is left.
func seenBy(off *offline, edges []api.Edge) []suite.Seen {
	var out []suite.Seen
	for _, e := range edges {
		protocol, err := identity.ParseProtocol(e.Protocol)
		if err != nil || e.Count == 0 || !stands(off, e.Client) || !stands(off, e.Server) {
			continue
		}
		out = append(out, suite.Seen{Client: e.Client, Server: e.Server, Protocol: protocol, Port: e.Port})
	}
	return out
}

func stands(off *offline, end string) bool {
	if end == "node" || end == "dns" {
		return false
	}
	_, err := off.cluster.Find(end, nil)
	return err == nil
}

// writeEvidence writes the tests, and with a folder the inventory for them beside them.
func (a *app) writeEvidence(file, dir string, tests, workloads []byte) error {
	if file == besidePolicies {
		file = filepath.Join(dir, "tests", "evidence.yaml")
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("write evidence: %w", err)
	}
	for _, x := range []struct {
		name string
		data []byte
	}{{file, tests}, {filepath.Join(filepath.Dir(file), "inventory.json"), workloads}} {
		word := "wrote"
		switch old, err := os.ReadFile(x.name); {
		case err == nil && string(old) == string(x.data):
			word = "unchanged"
		case err == nil:
			word = "changed"
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("write evidence: %w", err)
		}
		if word != "unchanged" {
			if err := os.WriteFile(x.name, x.data, 0o644); err != nil {
				return fmt.Errorf("write evidence: %w", err)
			}
		}
		fmt.Fprintf(a.out, "%s  %s\n", word, x.name)
	}
	return nil
}
