package main

import (
	"fmt"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/examples/shop"
	"github.com/bulkhead-firewall/bulkhead/identity"
)

// comparison is the learned graph held against the true one.
type comparison struct {
	True    int      // edges that graph.yaml names
	Found   int      // of them, learned
	Missing []string // true and not learned
	Wrong   []string // learned and not true
}

// compare folds both graphs to client, server, protocol and port.
func compare(g *shop.Graph, learned api.Graph) comparison {
	want := map[string]bool{}
	for _, e := range g.Edges {
		want[edgeName(nameOf(g, e.From), nameOf(g, e.To), e.Protocol, e.Port)] = false
	}
	c := comparison{True: len(want)}
	for _, e := range learned.Edges {
		name := edgeName(e.Client, e.Server, e.Protocol, e.Port)
		seen, known := want[name]
		switch {
		case !known:
			c.Wrong = append(c.Wrong, name)
		case !seen:
			want[name] = true
			c.Found++
		}
	}
	for name, seen := range want {
		if !seen {
			c.Missing = append(c.Missing, name)
		}
	}
	slices.Sort(c.Missing)
	slices.Sort(c.Wrong)
	return c
}

func edgeName(client, server, protocol string, port uint16) string {
	return fmt.Sprintf("%s → %s %s/%d", client, server, protocol, port)
}

// nameOf is what Bulkhead calls an end of graph.yaml: outside hosts are known by address only, but
// for the clouds' metadata servers, which are a named network.
func nameOf(g *shop.Graph, end string) string {
	if end == "world" {
		return shop.Shopper.String()
	}
	if s := g.Service(end); s != nil {
		return s.Namespace + "/" + s.Name
	}
	for _, x := range g.External {
		if x.Name == end && x.Name == "cloud-metadata" {
			return identity.MetadataNetwork
		}
		if x.Name == end {
			return x.Address
		}
	}
	return end // node
}
