package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy/simulate"
	"github.com/bulkhead-firewall/bulkhead/policy/suite"
)

// readSeen reads edges that were recorded: what `bulkhead graph -o json` prints, or `bulkhead flows
// -o json`, one list or one flow after the other (flows -f). Errors: name: what.
func (a *app) readSeen(name string) ([]api.Edge, error) {
	from := a.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, badInput(fmt.Errorf("read flows: %w", err))
		}
		defer f.Close()
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, maxProbesFile+1))
	switch {
	case err != nil:
		return nil, badInput(fmt.Errorf("read flows: %w", err))
	case len(data) > maxProbesFile:
		return nil, badInput(fmt.Errorf("read flows: %s is larger than %d MiB", name, maxProbesFile>>20))
	}
	edges, err := parseSeen(data)
	if err != nil {
		return nil, badInput(fmt.Errorf("%s:%w", name, err))
	}
	return edges, nil
}

// parseSeen's errors begin with the line.
func parseSeen(data []byte) ([]api.Edge, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	fold := folder{edges: map[edgeKey]*api.Edge{}}
	for {
		var raw json.RawMessage
		err := dec.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return fold.list(), nil
		}
		line := 1 + bytes.Count(data[:dec.InputOffset()-int64(len(raw))], []byte{'\n'})
		if err == nil {
			err = fold.take(raw)
		}
		if err != nil {
			return nil, fmt.Errorf("%d: want what `bulkhead graph -o json` or `bulkhead flows -o json` prints: %w", line, err)
		}
	}
}

// folder folds flows to edges, in the order in which they were first seen.
type folder struct {
	edges map[edgeKey]*api.Edge
	order []*api.Edge
}

type edgeKey struct {
	client, server, protocol string
	port                     uint16
}

func (f *folder) take(raw json.RawMessage) error {
	if raw[0] == '[' {
		var flows []api.Flow
		if err := json.Unmarshal(raw, &flows); err != nil {
			return err
		}
		for i := range flows {
			if err := f.flow(&flows[i]); err != nil {
				return fmt.Errorf("flow %d: %w", i, err)
			}
		}
		return nil
	}
	var shape map[string]json.RawMessage
	if err := json.Unmarshal(raw, &shape); err != nil {
		return err
	}
	if _, isGraph := shape["edges"]; !isGraph {
		var one api.Flow
		if err := json.Unmarshal(raw, &one); err != nil {
			return err
		}
		return f.flow(&one)
	}
	var g api.Graph
	if err := json.Unmarshal(raw, &g); err != nil {
		return err
	}
	for i := range g.Edges {
		if err := f.add(&g.Edges[i]); err != nil {
			return fmt.Errorf("edge %d: %w", i, err)
		}
	}
	return nil
}

// flow is one connection, or what repeats of it were folded to. Both ends report, so that counts of
// flows are higher than the graph's, which counts once.
func (f *folder) flow(x *api.Flow) error {
	if x.Event != "" && x.Event != "birth" && x.Event != "denied" {
		return nil // spoofed and raw frames are no connections
	}
	e := api.Edge{Client: x.Client, Server: x.Server, Protocol: x.Protocol, Port: x.Port, First: x.Time, Last: x.Time, Count: max(x.Count, 1)}
	if x.Verdict == "deny" {
		e.Count, e.Denied = 0, e.Count
	}
	return f.add(&e)
}

func (f *folder) add(e *api.Edge) error {
	protocol, err := identity.ParseProtocol(e.Protocol)
	switch {
	case err != nil:
		return err
	case e.Client == "" || e.Server == "":
		return errors.New("want client and server")
	case e.Port == 0 && protocol.HasPorts():
		return errors.New("want a port")
	}
	key := edgeKey{e.Client, e.Server, e.Protocol, e.Port}
	old := f.edges[key]
	if old == nil {
		c := *e
		f.edges[key] = &c
		f.order = append(f.order, &c)
		return nil
	}
	old.Count, old.Denied, old.Bytes = old.Count+e.Count, old.Denied+e.Denied, old.Bytes+e.Bytes
	old.First, old.Last = earlier(old.First, e.First), later(old.Last, e.Last)
	return nil
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (f *folder) list() []api.Edge {
	out := make([]api.Edge, len(f.order))
	for i, e := range f.order {
		out[i] = *e
	}
	return out
}

// cast finds who stands for the ends of edges.
func cast(c *suite.Cluster, edges []api.Edge) []simulate.Edge {
	out := make([]simulate.Edge, len(edges))
	for i, e := range edges {
		protocol, _ := identity.ParseProtocol(e.Protocol) // was read once
		out[i] = simulate.Edge{
			Client: e.Client, Server: e.Server, Protocol: protocol, Port: e.Port,
			Count: e.Count, Denied: e.Denied, First: e.First, Last: e.Last,
		}
		clients, servers := members(c, e.Client, e.Clients), members(c, e.Server, e.Servers)
		out[i].Clients, out[i].Servers = peers(c, e.Client, clients, servers), peers(c, e.Server, servers, clients)
	}
	return out
}

// members lists the workloads of a service that were seen and are still there, else all of them.
func members(c *suite.Cluster, end string, seen []string) []suite.Member {
	namespace, name, isService := strings.Cut(end, "/")
	if !isService {
		return nil
	}
	service := identity.Service{Namespace: namespace, Name: name}
	var out []suite.Member
	for _, pod := range seen {
		if m, ok := c.Pod(pod); ok && m.Workload.Service == service {
			out = append(out, m)
		}
	}
	if len(out) > 0 {
		return out
	}
	return c.Service(service)
}

// peers names an end: its workloads, the node of the other end's workloads, the resolvers, an address,
// a Service.
func peers(c *suite.Cluster, end string, mine, others []suite.Member) []identity.Peer {
	var out []identity.Peer
	for _, m := range mine {
		out = append(out, c.Peer(m))
	}
	if len(out) > 0 {
		return out
	}
	if end == "dns" {
		for _, a := range c.View().Resolvers {
			out = append(out, c.View().Peer(a))
		}
		return out
	}
	if p := c.View().Networks[end]; len(p) > 0 {
		return []identity.Peer{{Kind: identity.Network, Network: end, Addr: p[0].Addr()}}
	}
	found, err := c.Find(end, others)
	if err != nil {
		return nil // told as an end that nobody stands for
	}
	for _, m := range found {
		m.Addrs = sameFamily(m.Addrs, others)
		out = append(out, c.Peer(m))
	}
	return out
}

// sameFamily puts an address of a family that the other end has first.
func sameFamily(addrs []netip.Addr, others []suite.Member) []netip.Addr {
	for _, a := range addrs {
		for _, m := range others {
			if len(m.Addrs) > 0 && m.Addrs[0].Is4() == a.Is4() {
				return []netip.Addr{a}
			}
		}
	}
	return addrs
}
