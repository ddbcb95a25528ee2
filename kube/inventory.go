package kube

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// namespaceNameLabel is set on every namespace by Kubernetes itself (NamespaceDefaultLabelName).
const namespaceNameLabel = corev1.LabelMetadataName

// Inventory is what manifests say of a cluster. Pods and Workloads run in parallel: Workloads[i]
// is what Pods[i] means to policy. Both are sorted by namespace and name, as are Services.
type Inventory struct {
	Workloads  []identity.Workload
	Pods       []corev1.Pod
	Services   []identity.KubeService
	Namespaces map[string]identity.Labels // every namespace met; kubernetes.io/metadata.name is always set
	Nodes      map[string]identity.NodeInfo
	Policies   []Document // policies of every kind, in the order of the files
	Notes      []string   // what was left out and why, one sentence each with file:line
}

// Document is one policy document, unparsed.
type Document struct {
	Kind string // "NetworkPolicy", "Policy", ...
	Name string // namespace/name, or what is there of it
	File string
	Line int    // where Text begins in File, from 1
	Text string // YAML; as written, except for an item of a List, which is printed anew
}

// Relabel names the service of every workload again, by another order of labels than the default.
func (inv *Inventory) Relabel(order []string) {
	for i := range inv.Workloads {
		w := &inv.Workloads[i]
		w.Service = identity.ServiceOf(w.Namespace, ownerName(&inv.Pods[i]), w.Labels, order)
	}
}

// finish sorts and fills in what needs the whole inventory.
func (inv *Inventory) finish() {
	byName := func(a, b corev1.Pod) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	}
	slices.SortFunc(inv.Pods, byName)
	slices.SortFunc(inv.Services, func(a, b identity.KubeService) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	for i := range inv.Pods {
		ns := inv.Pods[i].Namespace
		if inv.Namespaces[ns] == nil {
			inv.Namespaces[ns] = namespaceLabels(ns, nil)
		}
		inv.Workloads = append(inv.Workloads, workload(&inv.Pods[i], inv.Namespaces[ns]))
	}
}

func namespaceLabels(name string, l map[string]string) identity.Labels {
	out := identity.Labels{}
	maps.Copy(out, l)
	out[namespaceNameLabel] = name
	return out
}

// workload turns a checked pod into what policy sees. A pod that has ended owns no address: its
// object keeps it while another pod may have it already.
func workload(p *corev1.Pod, ns identity.Labels) identity.Workload {
	w := identity.Workload{
		ID:              "inventory:" + p.Namespace + "/" + p.Name,
		Namespace:       p.Namespace,
		Name:            p.Name,
		Node:            p.Spec.NodeName,
		Labels:          identity.Labels(p.Labels),
		NamespaceLabels: ns,
		Service:         identity.ServiceOf(p.Namespace, ownerName(p), identity.Labels(p.Labels), nil),
		Ports:           containerPorts(p),
		HostNetwork:     p.Spec.HostNetwork,
		Source:          identity.SourceInventory,
	}
	if w.Labels == nil {
		w.Labels = identity.Labels{}
	}
	if p.Status.StartTime != nil {
		w.Since = p.Status.StartTime.Time
	}
	if p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
		w.Addrs = podAddrs(p)
	}
	return w
}

// containerPorts lists the ports of containers and of sidecars (init containers that are restarted
// always); other init containers are gone before the pod serves.
func containerPorts(p *corev1.Pod) []identity.ContainerPort {
	all := slices.Clone(p.Spec.Containers)
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			all = append(all, c)
		}
	}
	var out []identity.ContainerPort
	for _, c := range all {
		for _, port := range c.Ports {
			proto, err := protocol(port.Protocol)
			if err != nil {
				continue // refused when the manifest was checked
			}
			out = append(out, identity.ContainerPort{Name: port.Name, Protocol: proto, Port: uint16(port.ContainerPort)})
		}
	}
	return out
}

func protocol(p corev1.Protocol) (identity.Protocol, error) {
	switch p {
	case "", corev1.ProtocolTCP:
		return identity.TCP, nil
	case corev1.ProtocolUDP:
		return identity.UDP, nil
	case corev1.ProtocolSCTP:
		return identity.SCTP, nil
	}
	return 0, fmt.Errorf("protocol %q: want TCP, UDP or SCTP", p)
}

// cronStamp is what a CronJob puts behind its name for each Job: the scheduled time in minutes.
var cronStamp = regexp.MustCompile(`-[0-9]{8,10}$`)

// ownerName is the name of what made the pod: the Deployment rather than its ReplicaSet, the
// CronJob rather than its Job; the pod's own name where nobody did.
func ownerName(p *corev1.Pod) string {
	if len(p.OwnerReferences) == 0 {
		return p.Name
	}
	o := p.OwnerReferences[0]
	for _, ref := range p.OwnerReferences {
		if ref.Controller != nil && *ref.Controller {
			o = ref
		}
	}
	switch o.Kind {
	case "ReplicaSet":
		if hash := p.Labels["pod-template-hash"]; hash != "" {
			return strings.TrimSuffix(o.Name, "-"+hash)
		}
	case "Job":
		return cronStamp.ReplaceAllString(o.Name, "")
	}
	return o.Name
}
