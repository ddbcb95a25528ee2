package shop

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"sigs.k8s.io/yaml"
)

const manifestHead = `# The shop of graph.yaml as Kubernetes manifests: what bulkhead-lab and bulkheadd's inventory read.
# Made by: go generate ./examples/shop
`

type object map[string]any

// Manifests writes the graph as Kubernetes objects: its namespaces, a Pod per replica with the
// addresses that it is to have, and the Services. The same graph gives the same bytes.
func Manifests(g *Graph) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString(manifestHead)
	for _, o := range manifests(g) {
		b, err := yaml.Marshal(o)
		if err != nil {
			return nil, fmt.Errorf("write manifests: %w", err)
		}
		out.WriteString("---\n")
		out.Write(b)
	}
	return out.Bytes(), nil
}

func manifests(g *Graph) []object {
	var all []object
	namespaces := map[string]bool{}
	for _, s := range g.Services {
		namespaces[s.Namespace] = true
	}
	for _, name := range slices.Sorted(maps.Keys(namespaces)) {
		all = append(all, object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{
			"name": name, "labels": object{"kubernetes.io/metadata.name": name}}})
	}
	for _, p := range g.Pods() {
		all = append(all, podManifest(p))
	}
	for _, o := range g.Objects() {
		all = append(all, serviceManifest(o))
	}
	return all
}

func podManifest(p Pod) object {
	labels := object{}
	for k, v := range p.Service.Labels {
		labels[k] = v
	}
	if p.Service.Kind == "Deployment" {
		labels["pod-template-hash"] = templateHash(p.Service)
	}
	container := object{"name": "server", "image": "bulkhead.dev/shop"}
	var ports []object
	for _, port := range p.Service.Ports {
		ports = append(ports, object{"name": port.Name, "containerPort": port.Port, "protocol": port.Protocol})
	}
	if ports != nil {
		container["ports"] = ports
	}
	return object{"apiVersion": "v1", "kind": "Pod",
		"metadata": object{"name": p.Name, "namespace": p.Service.Namespace, "labels": labels},
		"spec":     object{"containers": []object{container}},
		"status": object{"phase": "Running", "podIP": p.Addrs[0].String(),
			"podIPs": []object{{"ip": p.Addrs[0].String()}, {"ip": p.Addrs[1].String()}}},
	}
}

func serviceManifest(o Object) object {
	var ports []object
	for _, v := range o.Ports {
		ports = append(ports, object{"name": portName(o.Service, v), "port": v.Port, "targetPort": v.Target, "protocol": v.Protocol})
	}
	m := object{"apiVersion": "v1", "kind": "Service",
		"metadata": object{"name": o.Name, "namespace": o.Service.Namespace},
		"spec": object{"type": o.Type, "selector": o.Service.Labels, "ports": ports, "ipFamilyPolicy": "PreferDualStack",
			"clusterIP": o.Addrs[0].String(), "clusterIPs": []string{o.Addrs[0].String(), o.Addrs[1].String()}},
	}
	if o.External.IsValid() {
		m["status"] = object{"loadBalancer": object{"ingress": []object{{"ip": o.External.String()}}}}
	}
	return m
}

// portName is the name of the container port that v leads to.
func portName(s *Service, v VIP) string {
	for _, p := range s.Ports {
		if p.Port == v.Target && p.Protocol == v.Protocol {
			return p.Name
		}
	}
	return fmt.Sprintf("port-%d", v.Port)
}
