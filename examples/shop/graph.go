package shop

import (
	_ "embed"
	"fmt"

	"sigs.k8s.io/yaml"
)

//go:embed graph.yaml
var graphYAML []byte

// Graph is graph.yaml: which services there are and which edges are true.
type Graph struct {
	Name       string     `json:"name"`
	Title      string     `json:"title"`
	Source     []any      `json:"source"`
	Deployment string     `json:"deployment"`
	Services   []Service  `json:"services"`
	External   []External `json:"external"`
	Edges      []Edge     `json:"edges"`
	Notes      []string   `json:"notes"`
}

// Service is one workload owner.
type Service struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace"`
	Kind      string            `json:"kind"`
	Replicas  int               `json:"replicas"`
	Labels    map[string]string `json:"labels"`
	Ports     []Port            `json:"ports"`
	VIPs      []VIP             `json:"vips,omitempty"`
	Origin    string            `json:"origin,omitempty"` // platform: part of every cluster
}

// Port is what a container listens on.
type Port struct {
	Name        string `json:"name"`
	Port        uint16 `json:"port"`
	Protocol    string `json:"protocol"`
	AppProtocol string `json:"app_protocol"`
}

// VIP is one port of a Service object in front of a service. Rows with the same name are one object.
type VIP struct {
	Name     string `json:"name"`
	Port     uint16 `json:"port"`
	Target   uint16 `json:"target"`
	Protocol string `json:"protocol"`
	Type     string `json:"type,omitempty"` // LoadBalancer, else ClusterIP
}

// External is a destination outside of the cluster.
type External struct {
	Name        string `json:"name"`
	DNS         string `json:"dns"`
	Address     string `json:"address"`
	Port        uint16 `json:"port"`
	Protocol    string `json:"protocol"`
	AppProtocol string `json:"app_protocol"`
	Why         string `json:"why"`
}

// Edge is one true edge, client to server. Port is the container's, also where the client dials a
// Service's.
type Edge struct {
	From        string  `json:"from"` // a service, node or world
	To          string  `json:"to"`   // a service or an external
	Port        uint16  `json:"port"`
	Protocol    string  `json:"protocol"`
	AppProtocol string  `json:"app_protocol"`
	When        string  `json:"when"`            // steady, start, rare
	Held        bool    `json:"held,omitempty"`  // one connection, opened once and kept
	Share       float64 `json:"share,omitempty"` // of the load generator's tasks
	Why         string  `json:"why"`
	Evidence    any     `json:"evidence"` // a path, or a list of them
}

// Load gives the shop's graph. A key that the types do not know is an error, so that the copy
// cannot say something that nobody plays.
func Load() (*Graph, error) {
	g := &Graph{}
	if err := yaml.UnmarshalStrict(graphYAML, g); err != nil {
		return nil, fmt.Errorf("graph.yaml: %w", err)
	}
	return g, nil
}

// Service finds a service by name; nil where the name is an external, node or world.
func (g *Graph) Service(name string) *Service {
	for i := range g.Services {
		if g.Services[i].Name == name {
			return &g.Services[i]
		}
	}
	return nil
}

// externalOf finds an external destination by name.
func (g *Graph) externalOf(name string) *External {
	for i := range g.External {
		if g.External[i].Name == name {
			return &g.External[i]
		}
	}
	return nil
}

// From gives the edges whose client has this name.
func (g *Graph) From(name string) []Edge {
	var out []Edge
	for _, e := range g.Edges {
		if e.From == name {
			out = append(out, e)
		}
	}
	return out
}
