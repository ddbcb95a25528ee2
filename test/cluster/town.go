package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// Town is a lab of n nodes, n1 and so on, on each a pod of every service: shop/a1, shop/b1, shop/c1 on n1.
type Town struct {
	*lab.Lab
	clients map[string]*api.Client
}

// Services of a town.
var Services = []string{"a", "b", "c"}

// Port is where every pod listens, TCP.
const Port = 8080

// Manifests describe the pods of a town.
func Manifests(nodes int) string {
	var b strings.Builder
	for n := 1; n <= nodes; n++ {
		for i, s := range Services {
			fmt.Fprintf(&b, "---\n{apiVersion: v1, kind: Pod, metadata: {name: %s%d, namespace: shop, labels: {app: %s, on: n%d}}, spec: {nodeName: n%d, containers: [{ports: [{name: http, containerPort: %d}]}]}, status: {podIPs: [{ip: 10.244.%d.%d}, {ip: \"fd00:244:%x::%x\"}]}}\n",
				s, n, s, n, n, Port, n, 10+i, n, 10+i)
		}
	}
	return b.String()
}

// Up makes a town. Services are in mode enforce, and no policy is there.
func Up(ctx context.Context, nodes int, o lab.Options) (*Town, error) {
	if o.Manifests == "" {
		o.Manifests = Manifests(nodes)
	}
	o.Mode = "enforce"
	l, err := lab.Up(ctx, o)
	if err != nil {
		return nil, err
	}
	t := &Town{Lab: l, clients: map[string]*api.Client{}}
	for _, n := range l.Nodes {
		t.clients[n.Name] = api.NewClient(n.Socket())
	}
	return t, nil
}

// Down leaves nothing of it.
func (t *Town) Down() error {
	for _, c := range t.clients {
		c.Close()
	}
	return t.Lab.Down()
}

// API is a node's daemon.
func (t *Town) API(node string) *api.Client { return t.clients[node] }

// Names lists the nodes.
func (t *Town) Names() []string {
	var out []string
	for _, n := range t.Nodes {
		out = append(out, n.Name)
	}
	return out
}

// Addr is a pod's address of one family, with the port where it listens.
func (t *Town) Addr(pod string, v4 bool) netip.AddrPort {
	p, err := t.Pod(pod)
	if err != nil {
		panic(err) // a test names its own pods
	}
	for _, a := range p.Addrs {
		if a.Is4() == v4 {
			return netip.AddrPortFrom(a, Port)
		}
	}
	panic("pod " + pod + ": no address of that family")
}

// Only is a policy that lets the service `from` alone, and whoever else is named, connect to a service.
func Only(name, to string, from ...string) string {
	var peers []string
	for _, f := range from {
		peers = append(peers, "{podSelector: {matchLabels: {app: "+f+"}}}")
	}
	return fmt.Sprintf("---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: %s, namespace: shop}, spec: {podSelector: {matchLabels: {app: %s}}, policyTypes: [Ingress], ingress: [{from: [%s]}]}}\n",
		name, to, strings.Join(peers, ", "))
}

// Apply puts policies in force through one node.
func (t *Town) Apply(ctx context.Context, node string, policies ...string) error {
	_, err := t.API(node).Apply(ctx, api.ApplyRequest{Files: []api.File{{Name: "test.yaml", Data: strings.Join(policies, "")}}})
	if err != nil {
		return fmt.Errorf("node %s: apply: %w", node, err)
	}
	return nil
}

// Delete takes a NetworkPolicy out through one node.
func (t *Town) Delete(ctx context.Context, node, name string) error {
	if err := t.API(node).DeletePolicy(ctx, "NetworkPolicy", "shop", name); err != nil {
		return fmt.Errorf("node %s: delete: %w", node, err)
	}
	return nil
}

// Policies lists what policies a node has in force, as texts by name.
func (t *Town) Policies(ctx context.Context, node string) (map[string]string, error) {
	list, err := t.API(node).Policies(ctx)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", node, err)
	}
	out := map[string]string{}
	for _, p := range list {
		out[p.Kind+" "+p.Namespace+"/"+p.Name] = p.YAML
	}
	return out, nil
}

// Until asks again and again until ok says yes, and tells what it last said otherwise. ok says why not;
// empty is yes.
func Until(ctx context.Context, what string, ok func(context.Context) (string, error)) error {
	for {
		why, err := ok(ctx)
		if err == nil && why == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s: %w; last: %s", what, ctx.Err(), why), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
