package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Mind is what a node knows of the cluster, as text: the hash of all policies and modes, the version and
// hash of every node's book, every workload with its addresses and labels, every policy's text. Nodes of
// one mind say the same.
func (t *Town) Mind(ctx context.Context, node string) (string, error) {
	st, err := t.API(node).ClusterStatus(ctx)
	if err != nil {
		return "", fmt.Errorf("node %s: %w", node, err)
	}
	lines := []string{"registers " + st.Registers}
	for _, b := range st.Books {
		lines = append(lines, fmt.Sprintf("book of %s, %s: %d entries, version %s, %s", b.Owner, b.Kind, b.Entries, b.Version, b.Root))
	}
	list, err := t.API(node).Workloads(ctx)
	if err != nil {
		return "", fmt.Errorf("node %s: %w", node, err)
	}
	for _, w := range list {
		var labels []string
		for _, k := range slices.Sorted(maps.Keys(w.Labels)) {
			labels = append(labels, k+"="+w.Labels[k])
		}
		lines = append(lines, fmt.Sprintf("workload %s/%s on %s: %v %v", w.Namespace, w.Name, w.Node, w.Addrs, labels))
	}
	policies, err := t.Policies(ctx, node)
	if err != nil {
		return "", err
	}
	for name, text := range policies {
		lines = append(lines, "policy "+name+": "+text)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n"), nil
}

// OneMind waits until the nodes given, or all, know the same.
func (t *Town) OneMind(ctx context.Context, nodes ...string) error {
	if len(nodes) == 0 {
		nodes = t.Names()
	}
	return Until(ctx, "nodes of one mind", func(ctx context.Context) (string, error) {
		first, err := t.Mind(ctx, nodes[0])
		if err != nil {
			return "", err
		}
		for _, n := range nodes[1:] {
			other, err := t.Mind(ctx, n)
			if err != nil {
				return "", err
			}
			if other != first {
				return fmt.Sprintf("%s and %s differ:\n%s", nodes[0], n, differ(first, other)), nil
			}
		}
		return "", nil
	})
}

// differ lists the lines that only one of two texts has.
func differ(a, b string) string {
	var out []string
	for sign, pair := range map[string][2]string{"-": {a, b}, "+": {b, a}} {
		have := strings.Split(pair[1], "\n")
		for _, line := range strings.Split(pair[0], "\n") {
			if !slices.Contains(have, line) {
				out = append(out, sign+" "+line)
			}
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// Holds waits until these nodes have a policy, or no longer have it.
func (t *Town) Holds(ctx context.Context, name string, want bool, nodes ...string) error {
	return Until(ctx, fmt.Sprintf("policy %s on %v: %v", name, nodes, want), func(ctx context.Context) (string, error) {
		for _, n := range nodes {
			list, err := t.Policies(ctx, n)
			if err != nil {
				return "", err
			}
			if _, have := list["NetworkPolicy shop/"+name]; have != want {
				return n, nil
			}
		}
		return "", nil
	})
}

// Knows waits until these nodes know a pod, or know it no more.
func (t *Town) Knows(ctx context.Context, pod string, want bool, nodes ...string) error {
	return Until(ctx, fmt.Sprintf("pod %s known by %v: %v", pod, nodes, want), func(ctx context.Context) (string, error) {
		for _, n := range nodes {
			list, err := t.API(n).Workloads(ctx)
			if err != nil {
				return "", fmt.Errorf("node %s: %w", n, err)
			}
			have := false
			for _, w := range list {
				have = have || w.Namespace+"/"+w.Name == pod && len(w.Addrs) > 0
			}
			if have != want {
				return n, nil
			}
		}
		return "", nil
	})
}

// Sees waits until a node takes these others for alive, or for dead.
func (t *Town) Sees(ctx context.Context, node string, others []string, state string) error {
	return Until(ctx, fmt.Sprintf("%s takes %v for %s", node, others, state), func(ctx context.Context) (string, error) {
		st, err := t.API(node).ClusterStatus(ctx)
		if err != nil {
			return "", fmt.Errorf("node %s: %w", node, err)
		}
		have := map[string]string{}
		for _, m := range st.Members {
			have[m.Node] = m.State
		}
		for _, o := range others {
			if have[o] != state {
				return fmt.Sprintf("%s is %q", o, have[o]), nil
			}
		}
		return "", nil
	})
}
