package main

import (
	"context"
	"fmt"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// whereInForce asks the cluster on how many nodes policies are in force, and writes it into them. False:
// the daemon is in no cluster.
func (a *app) whereInForce(ctx context.Context, all []api.Policy) (api.ClusterForce, bool, error) {
	force, err := a.client().ClusterForce(ctx)
	if api.HasCode(err, api.NotFound) {
		return force, false, nil
	}
	for i := range all {
		name := all[i].Kind + " " + nameOf(all[i])
		if all[i].Mode == "shadow" {
			name += " (shadow)"
		}
		if f, known := force.Policies[name]; known {
			all[i].Force = &f
		}
	}
	return force, err == nil, err
}

// nodesOf is "3/3"; empty for a policy of this node alone.
func nodesOf(f *api.PolicyForce) string {
	if f == nil {
		return ""
	}
	return fmt.Sprintf("%d/%d", f.Nodes, f.OfNodes)
}

// printForce says on how many nodes and workloads all is in force, and where not.
func (a *app) printForce(force api.ClusterForce) error {
	nodes, workloads, of := 0, 0, 0
	for _, n := range force.Nodes {
		if n.InForce {
			nodes++
			workloads += n.Workloads
		}
		of += n.Of
	}
	fmt.Fprintf(a.out, "in force on %d of %s, in %d of %s\n", nodes, plural(len(force.Nodes), "node", "nodes"), workloads, plural(of, "workload", "workloads"))
	return a.printLaggards(force.Nodes)
}

// printLaggards names the nodes where something is not in force.
func (a *app) printLaggards(nodes []api.NodeForce) error {
	for _, n := range nodes {
		if !n.InForce {
			if _, err := fmt.Fprintf(a.out, "not on     %s: %s\n", n.Node, n.Error); err != nil {
				return err
			}
		}
	}
	return nil
}

// waited tells how the nodes of the cluster stand to a change that was waited for. An error where one
// does not have it in force.
func (a *app) waited(r api.ApplyResult) error {
	lag := 0
	for _, n := range r.Nodes {
		if !n.InForce {
			lag++
		}
	}
	if lag == 0 {
		return nil
	}
	return refused("generation %d is not in force on %d of %s", r.Generation, lag, plural(len(r.Nodes), "other node", "other nodes"))
}

// printWaited is the same for people.
func (a *app) printWaited(r api.ApplyResult) error {
	held, slowest := 0, 0.0
	for _, n := range r.Nodes {
		if n.InForce {
			held++
		}
		slowest = max(slowest, n.Seconds)
	}
	if len(r.Nodes) == 0 {
		return nil
	}
	fmt.Fprintf(a.out, "in force on %d of %s after %v\n", held, plural(len(r.Nodes), "other node", "other nodes"),
		time.Duration(slowest*float64(time.Second)).Round(time.Millisecond))
	return a.printLaggards(r.Nodes)
}
