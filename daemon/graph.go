package daemon

import (
	"cmp"
	"context"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
)

// Graph is the service graph: what was seen, and the services that run.
func (d *Daemon) Graph(context.Context) (api.Graph, error) {
	view, m := d.index.View(), d.modes.Load()
	nodes := map[string]*api.GraphNode{}
	service := func(s identity.Service) *api.GraphNode {
		if nodes[s.String()] == nil {
			nodes[s.String()] = &api.GraphNode{Name: s.String(), Kind: "service", Mode: m.of(s).String()}
		}
		return nodes[s.String()]
	}
	for _, w := range view.Workloads {
		if len(w.Addrs) > 0 || w.Local {
			service(w.Service).Workloads++
		}
	}
	out := api.Graph{Nodes: []api.GraphNode{}, Edges: []api.Edge{}}
	for _, e := range d.edges() {
		for _, end := range []flow.End{e.Client, e.Server} {
			if end.Kind == identity.Pod {
				service(end.Service)
			} else if nodes[end.String()] == nil {
				nodes[end.String()] = &api.GraphNode{Name: end.String(), Kind: end.Kind.String()}
			}
		}
		out.Edges = append(out.Edges, edgeRow(&e))
	}
	for _, n := range nodes {
		out.Nodes = append(out.Nodes, *n)
	}
	slices.SortFunc(out.Nodes, func(a, b api.GraphNode) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// edgeRow is an edge as the API tells it.
func edgeRow(e *flow.Edge) api.Edge {
	row := api.Edge{
		Client: e.Client.String(), Server: e.Server.String(), Protocol: e.Protocol.String(), Port: e.Port,
		First: e.First, Last: e.Last, Count: e.Count() + e.WouldDeny(), Bytes: e.Bytes(), Denied: e.Denied(),
		Clients: members(e.Clients), Servers: members(e.Servers),
	}
	if len(e.VIPs.Items) > 0 {
		row.VIP = e.VIPs.Items[0].What.String()
	}
	row.Names = e.NameList()
	return row
}

func members(list flow.Earliest[flow.Member]) []string {
	out := []string{}
	for _, m := range list.Items {
		out = append(out, m.What.String())
	}
	return out
}

// Generate writes policies that allow what was seen.
func (d *Daemon) Generate(_ context.Context, namespace, service, format string) (string, error) {
	o := flow.Options{Namespace: namespace, Service: service, Format: flow.Format(cmp.Or(format, string(flow.Native))), LabelOrder: d.cfg.LabelOrder, Nodes: d.cluster.witnesses()}
	text, err := flow.Render(flow.Suggest(d.edges(), d.index.View(), o))
	return string(text), err
}
