package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/kube"
)

// looksLikeExport says whether a file is a list, as `bulkhead workloads -o json` and -o yaml print it;
// Kubernetes manifests are mappings. Only the first sign is looked at.
func looksLikeExport(data []byte) bool {
	for line := range bytes.Lines(data) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		return line[0] == '[' || bytes.HasPrefix(line, []byte("- "))
	}
	return false
}

// importWorkloads reads the daemon's list of workloads as the manifests that it stands for: a
// Namespace with its labels and a Pod each. Errors: name: what, with the place in the list.
func importWorkloads(in *kube.Reader, name string, data []byte) error {
	var list []api.Workload
	if err := yaml.UnmarshalStrict(data, &list); err != nil {
		return fmt.Errorf("%s:1: not what `bulkhead workloads -o json` prints: %w", name, err)
	}
	var items []any
	for i, w := range list {
		if w.Namespace == "" || w.Name == "" {
			return fmt.Errorf("%s:1: workload %d: want namespace and name", name, i)
		}
		if len(w.NamespaceLabels) > 0 {
			ns := corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}}
			ns.Name, ns.Labels = w.Namespace, w.NamespaceLabels
			items = append(items, ns)
		}
		pod, err := podOf(&w)
		if err != nil {
			return fmt.Errorf("%s:1: workload %d: %w", name, i, err)
		}
		items = append(items, pod)
	}
	text, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": items})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	in.Add(name, text)
	return nil
}

func podOf(w *api.Workload) (*corev1.Pod, error) {
	p := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	p.Namespace, p.Name, p.Labels = w.Namespace, w.Name, w.Labels
	p.Spec.NodeName, p.Spec.HostNetwork = w.Node, w.HostNetwork
	c := corev1.Container{Name: "workload"}
	for _, text := range w.Ports {
		port, err := containerPort(text)
		if err != nil {
			return nil, err
		}
		c.Ports = append(c.Ports, port)
	}
	p.Spec.Containers = []corev1.Container{c}
	for _, a := range w.Addrs {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a})
	}
	if len(w.Addrs) == 0 {
		p.Status.Phase = corev1.PodSucceeded // the daemon knows it, and it owns no address
	}
	return p, nil
}

// containerPort reads "TCP/80" and "http=TCP/80".
func containerPort(text string) (corev1.ContainerPort, error) {
	var out corev1.ContainerPort
	rest := text
	if name, after, named := strings.Cut(text, "="); named {
		out.Name, rest = name, after
	}
	protocol, number, _ := strings.Cut(rest, "/")
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return out, fmt.Errorf("port %q: want NAME=PROTOCOL/NUMBER, for example http=TCP/80", text)
	}
	out.Protocol, out.ContainerPort = corev1.Protocol(protocol), int32(n)
	return out, nil
}
