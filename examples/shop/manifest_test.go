package shop

import (
	"bytes"
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// shop.yaml is checked in so that a reader, and the lab, need no generator. It must say what
// graph.yaml says.
func TestManifestsAreThoseOfTheGraph(t *testing.T) {
	g := load(t)
	want, err := Manifests(g)
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile("shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want) {
		t.Fatal("shop.yaml is not what graph.yaml gives; run: go generate ./examples/shop")
	}
}

// The manifests must be what Kubernetes takes them for: strict decoding into its own types finds
// every service, port and address of the graph again.
func TestManifestsAreKubernetes(t *testing.T) {
	g := load(t)
	text, err := os.ReadFile("shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	listens := map[[3]any]bool{} // service, port, protocol
	dialled := map[[3]any]bool{} // service, target, protocol
	for _, doc := range bytes.Split(text, []byte("\n---\n")) {
		var kind struct{ Kind string }
		if err := yaml.Unmarshal(doc, &kind); err != nil {
			t.Fatal(err)
		}
		switch kind.Kind {
		case "Pod":
			var p corev1.Pod
			strict(t, doc, &p)
			s := serviceWith(t, g, p.Namespace, p.Labels)
			if len(p.Status.PodIPs) != 2 {
				t.Errorf("pod %s: addresses %v, want one of each family", p.Name, p.Status.PodIPs)
			}
			for _, port := range p.Spec.Containers[0].Ports {
				listens[[3]any{s.Name, uint16(port.ContainerPort), string(port.Protocol)}] = true
			}
		case "Service":
			var svc corev1.Service
			strict(t, doc, &svc)
			s := serviceWith(t, g, svc.Namespace, svc.Spec.Selector)
			for _, port := range svc.Spec.Ports {
				dialled[[3]any{s.Name, uint16(port.TargetPort.IntValue()), string(port.Protocol)}] = true
			}
		}
	}
	for _, s := range g.Services {
		for _, p := range s.Ports {
			key := [3]any{s.Name, p.Port, p.Protocol}
			if !listens[key] || !dialled[key] {
				t.Errorf("%v: listens %t, behind a Service %t, want both", key, listens[key], dialled[key])
			}
		}
	}
}

func TestEveryEdgeHasEnds(t *testing.T) {
	g := load(t)
	for _, e := range g.Edges {
		if g.Service(e.From) == nil && e.From != "node" && e.From != "world" {
			t.Errorf("edge %s → %s: unknown client", e.From, e.To)
		}
		if g.Service(e.To) == nil && g.externalOf(e.To) == nil {
			t.Errorf("edge %s → %s: unknown server", e.From, e.To)
		}
	}
}

func load(t *testing.T) *Graph {
	t.Helper()
	g, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func strict(t *testing.T, doc []byte, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict(doc, into); err != nil {
		t.Fatalf("%v in:\n%s", err, doc)
	}
}

func serviceWith(t *testing.T, g *Graph, namespace string, labels map[string]string) *Service {
	t.Helper()
	for i := range g.Services {
		s := &g.Services[i]
		match := s.Namespace == namespace
		for k, v := range s.Labels {
			match = match && labels[k] == v
		}
		if match {
			return s
		}
	}
	t.Fatalf("labels %v in %s: no service of the graph", labels, namespace)
	return nil
}
