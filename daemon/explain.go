package daemon

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/explain"
)

// Explain says what happens to a connection, and why.
func (d *Daemon) Explain(_ context.Context, r api.ExplainRequest) (api.Explanation, error) {
	view, m, set := d.index.View(), d.modes.Load(), d.rules.Load().set
	protocol, err := identity.ParseProtocol(r.Protocol)
	if err != nil {
		return api.Explanation{}, api.Errorf(api.BadRequest, "%v", err)
	}
	x := api.Explanation{}
	client, err := resolve(view, r.Client, &x.Notes)
	if err != nil {
		return x, err
	}
	server, err := d.resolveServer(view, client, r.Server, &x.Notes)
	if err != nil {
		return x, err
	}
	port, err := portOf(r, protocol, server)
	if err != nil {
		return x, err
	}
	if r.PortName != "" {
		x.Notes = append(x.Notes, fmt.Sprintf("port %q of %s is %s", r.PortName, r.Server, flow.PortName(protocol, port)))
	}
	c := policy.Connection{Client: client, Server: server, Protocol: protocol, Port: port, Names: d.namesKnown(client, server)}
	if len(c.Names) > 0 {
		x.Notes = append(x.Notes, fmt.Sprintf("%s knows %s as %s", r.Client, server.Addr, strings.Join(c.Names, ", ")))
	}
	why := explain.Explain(view, set, func(s *policy.Set, c policy.Connection) policy.Decision { return s.Evaluate(view, c) }, c)
	decision := why.Decision
	cm, sm := m.modeOf(client), m.modeOf(server)
	x.Verdict, x.Policy = outcome(decision, cm, sm).String(), decision.Verdict.String()
	x.Client, x.Server = client.String(), server.String()
	x.Egress, x.Ingress = explainSide(decision.Egress, why.Egress, client, cm), explainSide(decision.Ingress, why.Ingress, server, sm)
	x.Egress.OnDeny, x.Ingress.OnDeny = d.cfg.OnDeny.manner(decision.Egress, policy.Egress, cm), d.cfg.OnDeny.manner(decision.Ingress, policy.Ingress, sm)
	x.OnDeny = cmp.Or(x.Egress.OnDeny, x.Ingress.OnDeny)
	x.Notes = append(x.Notes, d.throughVIP(view, m, decision, c, &x)...)
	x.Seen = d.seen(view, c)
	return x, nil
}

func explainSide(s policy.SideDecision, why explain.Side, p identity.Peer, m policy.Mode) api.ExplainSide {
	out := api.ExplainSide{Isolated: s.Isolated, Verdict: s.Verdict.String(), Rule: s.Rule, Reason: s.Reason, Policies: s.Policies}
	if p.Workload != nil {
		out.Workload, out.Mode = p.Workload.Namespace+"/"+p.Workload.Name, m.String()
	}
	for _, r := range why.Rules {
		out.Rules = append(out.Rules, api.ExplainRule(r))
	}
	if why.Fix != nil {
		fix := api.ExplainFix(*why.Fix)
		out.Fix = &fix
	}
	return out
}

// throughVIP names the backends of a virtual address, and lets the strictest mode among them count:
// any of them may get the connection.
func (d *Daemon) throughVIP(view *identity.View, m *modes, decision policy.Decision, c policy.Connection, x *api.Explanation) []string {
	if c.Server.Kind != identity.VIP {
		return nil
	}
	backends := view.Backends(identity.VIPKey{Addr: c.Server.Addr, Protocol: c.Protocol, Port: c.Port})
	if len(backends) == 0 {
		return []string{fmt.Sprintf("service %s has no known workload behind %s", c.Server.Network, flow.PortName(c.Protocol, c.Port))}
	}
	var names []string
	strictest := outcome(decision, m.modeOf(c.Client), policy.Learn)
	for _, b := range backends {
		names = append(names, fmt.Sprintf("%s/%s %s", b.Workload.Namespace, b.Workload.Name, flow.PortName(c.Protocol, b.Port)))
		strictest = min(strictest, sideVerdict(decision.Ingress, m.of(b.Workload.Service)))
	}
	x.Verdict = strictest.String()
	return []string{fmt.Sprintf("behind service %s: %s", c.Server.Network, strings.Join(names, ", "))}
}

// seen finds the edge of a connection in the graph.
func (d *Daemon) seen(view *identity.View, c policy.Connection) *api.Edge {
	key := flow.Key{Client: flow.EndOf(c.Client), Server: flow.EndOf(c.Server), Protocol: c.Protocol, Port: c.Port}
	if c.Server.Kind == identity.VIP {
		if b := view.Backends(identity.VIPKey{Addr: c.Server.Addr, Protocol: c.Protocol, Port: c.Port}); len(b) > 0 {
			key.Server, key.Port = flow.EndOf(podPeer(b[0].Workload)), b[0].Port
		}
	}
	e, found := d.allEdges().Edge(key)
	if !found {
		return nil
	}
	row := edgeRow(&e)
	return &row
}

// resolve finds whom a name means: an address, "node", "dns", "world", a named network, or
// namespace/name of a workload, a service, or a Kubernetes Service.
func resolve(view *identity.View, name string, notes *[]string) (identity.Peer, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		return view.Peer(a), nil
	}
	first := func(list []identity.Peer, none string) (identity.Peer, error) {
		if len(list) == 0 {
			return identity.Peer{}, api.Errorf(api.NotFound, "%s: %s", name, none)
		}
		return list[0], nil
	}
	switch name {
	case "node":
		return first(addrPeers(identity.Peer{Kind: identity.Node}, view.NodeAddrs), "this node has no address")
	case "dns":
		return first(addrPeers(identity.Peer{Kind: identity.Resolver}, view.Resolvers), "no resolver is known; name it under resolvers in the configuration")
	case "world":
		return identity.Peer{Kind: identity.World, Addr: someWorld}, nil
	}
	if p := view.Networks[name]; len(p) > 0 {
		return identity.Peer{Kind: identity.Network, Network: name, Addr: p[0].Addr()}, nil
	}
	s, err := parseService(name)
	if err != nil {
		return identity.Peer{}, api.Errorf(api.BadRequest, "%v, node, dns, world, a named network or an address", err)
	}
	if w := view.Find(s.Namespace, s.Name); w != nil {
		return podPeer(w), nil
	}
	if list := servicePeers(view, s); len(list) > 0 {
		if len(list) > 1 {
			*notes = append(*notes, fmt.Sprintf("%s is %d workloads; %s/%s stands for them", s, len(list), list[0].Workload.Namespace, list[0].Workload.Name))
		}
		return list[0], nil
	}
	if vips := sortedVIPs(view, name); len(vips) > 0 {
		return identity.Peer{Kind: identity.VIP, Network: name, Addr: vips[0]}, nil
	}
	return identity.Peer{}, api.Errorf(api.NotFound, "%s: no workload, service or Service of that name is known", name)
}

// portOf is the port of a request; a name is looked up at the server.
func portOf(r api.ExplainRequest, protocol identity.Protocol, server identity.Peer) (uint16, error) {
	if r.PortName == "" {
		return r.Port, nil
	}
	if server.Workload == nil {
		return 0, api.Errorf(api.BadRequest, "port %q: %s is no workload; give a number", r.PortName, r.Server)
	}
	port := server.Workload.PortNamed(r.PortName, protocol)
	if port == 0 {
		return 0, api.Errorf(api.NotFound, "port %q: %s/%s has no %s port of that name", r.PortName, server.Workload.Namespace, server.Workload.Name, protocol)
	}
	return port, nil
}

// parseService reads "namespace/name".
func parseService(name string) (identity.Service, error) {
	namespace, rest, found := strings.Cut(name, "/")
	if !found || namespace == "" || rest == "" || strings.Contains(rest, "/") {
		return identity.Service{}, fmt.Errorf("service %q: want namespace/name", name)
	}
	return identity.Service{Namespace: namespace, Name: rest}, nil
}
