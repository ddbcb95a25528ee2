package cluster

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// Spread tells how much later than its own node each other one took up a pod that all know. All nodes
// of a lab have one clock.
func (t *Town) Spread(ctx context.Context, pod string) (map[string]time.Duration, error) {
	p, err := t.Pod(pod)
	if err != nil {
		return nil, err
	}
	since := map[string]time.Time{}
	for _, n := range t.Names() {
		w, err := t.workload(ctx, n, pod)
		if err != nil {
			return nil, err
		}
		since[n] = w.Since
	}
	out := map[string]time.Duration{}
	for n, at := range since {
		if n != p.Node {
			out[n] = at.Sub(since[p.Node])
		}
	}
	return out, nil
}

// workload is a pod as a node knows it.
func (t *Town) workload(ctx context.Context, node, pod string) (api.Workload, error) {
	list, err := t.API(node).Workloads(ctx)
	if err != nil {
		return api.Workload{}, fmt.Errorf("node %s: %w", node, err)
	}
	for _, w := range list {
		if w.Namespace+"/"+w.Name == pod {
			return w, nil
		}
	}
	return api.Workload{}, fmt.Errorf("node %s does not know %s", node, pod)
}

// Applied is when the last pod of a service was given the rules that it has; late is a node whose pod was
// given none after begin.
func (t *Town) Applied(ctx context.Context, service string, begin time.Time) (last time.Time, late string, err error) {
	for _, n := range t.Names() {
		list, err := t.API(n).Workloads(ctx)
		if err != nil {
			return last, "", fmt.Errorf("node %s: %w", n, err)
		}
		for _, w := range list {
			if !w.Local || w.Labels["app"] != service {
				continue
			}
			if !w.Applied.After(begin) {
				late = n
			}
			if w.Applied.After(last) {
				last = w.Applied
			}
		}
	}
	return last, late, nil
}

// Others are the nodes that a pod does not run on.
func (t *Town) Others(pod string) []string {
	p, err := t.Pod(pod)
	if err != nil {
		panic(err) // a test names its own pods
	}
	return slices.DeleteFunc(t.Names(), func(n string) bool { return n == p.Node })
}
