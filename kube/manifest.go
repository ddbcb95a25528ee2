package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	kjson "sigs.k8s.io/json"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// maxNotes bounds what a dump with thousands of unread kinds may say.
const maxNotes = 100

// ParseManifests reads one file of Kubernetes manifests: YAML with any number of documents, or
// JSON, Lists included. Namespace, Pod and Service are read, policies are handed on unparsed,
// other kinds are named in Notes. Fields that are not needed are not checked.
//
// Errors read "file:line: what"; all of them are joined, and the inventory is then nil.
func ParseManifests(name string, data []byte) (*Inventory, error) {
	l := newLoader()
	l.add(name, data)
	return l.finish()
}

// ReadDir reads every *.yaml, *.yml and *.json of one directory, in the order of their names.
// Directories inside of it and files whose names begin with a dot are left alone.
func ReadDir(dir string) (*Inventory, error) { return ReadFiles(dir) }

// ReadFiles reads manifests from files and directories as if they were one stream: where an object
// comes twice the later one counts, and Notes says so. What lies in a directory and is no manifest (see
// [Foreign]) is left out with a note.
func ReadFiles(paths ...string) (*Inventory, error) {
	l := newLoader()
	for _, path := range paths {
		files, err := manifestFiles(path)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				return nil, err
			}
			if f != path && Foreign(data) {
				l.inv.Notes = append(l.inv.Notes, f+": JSON, and no Kubernetes object; left out")
				continue
			}
			l.add(f, data)
		}
	}
	return l.finish()
}

func manifestFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".yaml", ".yml", ".json":
			if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
				out = append(out, filepath.Join(path, e.Name()))
			}
		}
	}
	return out, nil
}

// loader gathers objects of several files.
type loader struct {
	inv      *Inventory
	pods     map[string]corev1.Pod
	services map[string]identity.KubeService
	seen     map[string]string // kind and name → file:line
	errs     []error
	holds    Holds           // the file that is being read
	kinds    map[string]bool // kinds that are not read: do they look like a policy's, mistyped?
}

func newLoader() *loader {
	return &loader{
		inv:      &Inventory{Namespaces: map[string]identity.Labels{}, Nodes: map[string]identity.NodeInfo{}},
		pods:     map[string]corev1.Pod{},
		services: map[string]identity.KubeService{},
		seen:     map[string]string{},
		kinds:    map[string]bool{},
	}
}

func (l *loader) finish() (*Inventory, error) {
	if err := errors.Join(l.errs...); err != nil {
		return nil, err
	}
	for _, p := range l.pods {
		l.inv.Pods = append(l.inv.Pods, p)
	}
	for _, s := range l.services {
		l.inv.Services = append(l.inv.Services, s)
	}
	l.inv.finish()
	return l.inv, nil
}

func (l *loader) add(file string, data []byte) {
	list, err := objects(file, data)
	if err != nil {
		l.errs = append(l.errs, err)
	}
	for _, o := range list {
		if err := l.take(o); err != nil {
			l.errs = append(l.errs, err)
		}
	}
}

func (l *loader) take(o object) error {
	group, _, hasGroup := strings.Cut(o.api, "/")
	switch {
	case !hasGroup && o.kind == "Namespace":
		return l.namespace(o)
	case !hasGroup && o.kind == "Pod":
		return l.pod(o)
	case !hasGroup && o.kind == "Service":
		return l.service(o)
	case !hasGroup && o.kind == "Node":
		return l.node(o)
	case isSuite(o.kind):
		l.holds.Tests = true
		return nil
	case isPolicy(group, o.kind):
		l.holds.Policies = true
		d, err := o.document()
		l.inv.Policies = append(l.inv.Policies, d)
		return err
	}
	near, known := l.kinds[o.kind]
	if !known && len(l.kinds) < maxNotes {
		near = policy.Nearest(o.kind, policyKinds) != ""
		l.kinds[o.kind] = near
	}
	l.holds.Policies = l.holds.Policies || near
	l.note(o, "not read; Namespace, Pod, Service, Node and policies are")
	return nil
}

// suiteKind is a file of tests, which package policy/suite reads.
const suiteKind = "PolicyTest"

// isSuite says whether a kind is that of tests, or is meant to be.
func isSuite(kind string) bool {
	return kind != "PolicyList" && policy.Nearest(kind, []string{suiteKind}) != ""
}

var policyKinds = []string{policy.KindPolicy, policy.KindNetworkPolicy, policy.KindClusterNetworkPolicy,
	policy.KindAdminNetworkPolicy, policy.KindBaselineAdminNetworkPolicy}

// isPolicy says whether a document is for package policy to read, or to refuse: a policy of a group
// that is not known must not be passed over as if it were a Deployment.
func isPolicy(group, kind string) bool {
	if slices.Contains(policyKinds, kind) && kind != policy.KindPolicy {
		return true
	}
	switch group {
	case "bulkhead.dev":
		return true
	case "networking.k8s.io":
		return policy.Nearest(kind, policyKinds) != "" // else Ingress, ServiceCIDR, ClusterCIDR, …
	}
	return group == policy.ClusterGroup
}

func (l *loader) note(o object, what string) {
	if len(l.inv.Notes) == maxNotes {
		l.inv.Notes = append(l.inv.Notes, "more notes were left out")
	}
	if len(l.inv.Notes) > maxNotes {
		return
	}
	l.inv.Notes = append(l.inv.Notes, fmt.Sprintf("%s:%d: %s %s: %s", o.file, o.line(o.node), o.kind, o.name(), what))
}

// once notes that an object comes a second time.
func (l *loader) once(o object, name string) {
	key := o.kind + " " + name
	if first, ok := l.seen[key]; ok {
		l.note(o, "replaces the one of "+first)
	}
	l.seen[key] = fmt.Sprintf("%s:%d", o.file, o.line(o.node))
}

// decode fills a Kubernetes type from the tree. Type errors name the field and its line.
func (o object) decode(into any) error {
	plainStrings(o.node)
	var tree any
	if err := o.node.Decode(&tree); err != nil {
		return syntaxError(o.file, o.base, err)
	}
	data, err := json.Marshal(tree)
	if err != nil {
		return o.errorf(o.node, "%s %s: %w", o.kind, o.name(), err)
	}
	err = kjson.UnmarshalCaseSensitivePreserveInts(data, into)
	if te := (*json.UnmarshalTypeError)(nil); errors.As(err, &te) {
		return o.errorf(o.at(te.Field), "%s %s: %s: a %s where Kubernetes has %s", o.kind, o.name(), te.Field, te.Value, te.Type)
	}
	if err != nil {
		return o.errorf(o.node, "%s %s: %w", o.kind, o.name(), err)
	}
	return nil
}

// plainStrings takes unquoted dates for strings, as Kubernetes does.
func plainStrings(n *yaml.Node) {
	if n.Tag == "!!timestamp" {
		n.Tag = "!!str"
	}
	for _, c := range n.Content {
		plainStrings(c)
	}
}

func (l *loader) namespace(o object) error {
	var ns corev1.Namespace
	if err := o.decode(&ns); err != nil {
		return err
	}
	if ns.Name == "" {
		return o.errorf(o.at("metadata"), "Namespace: metadata.name: missing")
	}
	l.once(o, ns.Name)
	l.inv.Namespaces[ns.Name] = namespaceLabels(ns.Name, ns.Labels)
	return nil
}

func (l *loader) pod(o object) error {
	var p corev1.Pod
	if err := o.decode(&p); err != nil {
		return err
	}
	if p.Name == "" {
		return o.errorf(o.at("metadata"), "Pod: metadata.name: missing")
	}
	if p.Namespace == "" {
		p.Namespace = corev1.NamespaceDefault
	}
	if err := checkPod(o, &p); err != nil {
		return err
	}
	key := p.Namespace + "/" + p.Name
	l.once(o, key)
	l.pods[key] = p
	return nil
}

// checkPod refuses ports, protocols and addresses that cannot be.
func checkPod(o object, p *corev1.Pod) error {
	var errs []error
	refuse := func(path string, err error) {
		errs = append(errs, o.errorf(o.at(path), "Pod %s/%s: %s: %w", p.Namespace, p.Name, path, err))
	}
	check := func(list string, cs []corev1.Container) {
		for i, c := range cs {
			for j, port := range c.Ports {
				path := fmt.Sprintf("spec.%s[%d].ports[%d]", list, i, j)
				if err := checkPort(port.ContainerPort); err != nil {
					refuse(path+".containerPort", err)
				}
				if _, err := protocol(port.Protocol); err != nil {
					refuse(path+".protocol", err)
				}
			}
		}
	}
	check("containers", p.Spec.Containers)
	check("initContainers", p.Spec.InitContainers)
	for i, ip := range p.Status.PodIPs {
		if _, err := parseAddr(ip.IP); err != nil {
			refuse(fmt.Sprintf("status.podIPs[%d].ip", i), err)
		}
	}
	if p.Status.PodIP != "" {
		if _, err := parseAddr(p.Status.PodIP); err != nil {
			refuse("status.podIP", err)
		}
	}
	return errors.Join(errs...)
}

// podAddrs lists podIPs and podIP, each once, in the order given.
func podAddrs(p *corev1.Pod) []netip.Addr {
	all := []string{p.Status.PodIP}
	for _, ip := range p.Status.PodIPs {
		all = append(all, ip.IP)
	}
	var out []netip.Addr
	for _, s := range all {
		if a, err := parseAddr(s); err == nil && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

func (l *loader) service(o object) error {
	var s corev1.Service
	if err := o.decode(&s); err != nil {
		return err
	}
	if s.Name == "" {
		return o.errorf(o.at("metadata"), "Service: metadata.name: missing")
	}
	if s.Namespace == "" {
		s.Namespace = corev1.NamespaceDefault
	}
	out := identity.KubeService{Namespace: s.Namespace, Name: s.Name, Selector: identity.Labels(s.Spec.Selector)}
	var errs []error
	refuse := func(path string, err error) {
		errs = append(errs, o.errorf(o.at(path), "Service %s/%s: %s: %w", s.Namespace, s.Name, path, err))
	}
	for path, ip := range serviceAddrs(&s) {
		a, err := parseAddr(ip)
		if err != nil {
			refuse(path, err)
		} else if !slices.Contains(out.Addrs, a) {
			out.Addrs = append(out.Addrs, a)
		}
	}
	for i, p := range s.Spec.Ports {
		port, err := servicePort(p)
		if err != nil {
			refuse(fmt.Sprintf("spec.ports[%d]", i), err)
		}
		out.Ports = append(out.Ports, port)
	}
	key := s.Namespace + "/" + s.Name
	l.once(o, key)
	l.services[key] = out
	return errors.Join(errs...)
}

// serviceAddrs yields every virtual address of a Service with the path of its field. Headless and
// ExternalName Services have none.
func serviceAddrs(s *corev1.Service) func(yield func(string, string) bool) {
	return func(yield func(string, string) bool) {
		if s.Spec.Type == corev1.ServiceTypeExternalName {
			return
		}
		none := func(ip string) bool { return ip == "" || ip == corev1.ClusterIPNone }
		if !none(s.Spec.ClusterIP) && !yield("spec.clusterIP", s.Spec.ClusterIP) {
			return
		}
		for i, ip := range s.Spec.ClusterIPs {
			if !none(ip) && !yield(fmt.Sprintf("spec.clusterIPs[%d]", i), ip) {
				return
			}
		}
		for i, ip := range s.Spec.ExternalIPs {
			if !yield(fmt.Sprintf("spec.externalIPs[%d]", i), ip) {
				return
			}
		}
		for i, in := range s.Status.LoadBalancer.Ingress {
			// Proxy: the load balancer is a machine of its own and the address is not this Service's.
			proxy := in.IPMode != nil && *in.IPMode == corev1.LoadBalancerIPModeProxy
			if in.IP != "" && !proxy && !yield(fmt.Sprintf("status.loadBalancer.ingress[%d].ip", i), in.IP) {
				return
			}
		}
	}
}

func servicePort(p corev1.ServicePort) (identity.ServicePort, error) {
	out := identity.ServicePort{Name: p.Name, Port: uint16(p.Port)}
	var err error
	if out.Protocol, err = protocol(p.Protocol); err != nil {
		return out, err
	}
	if err := checkPort(p.Port); err != nil {
		return out, err
	}
	switch {
	case p.TargetPort.Type == intstr.String && p.TargetPort.StrVal != "":
		out.TargetName = p.TargetPort.StrVal
	case p.TargetPort.IntVal != 0:
		if err := checkPort(p.TargetPort.IntVal); err != nil {
			return out, fmt.Errorf("targetPort: %w", err)
		}
		out.Target = uint16(p.TargetPort.IntVal)
	default: // Kubernetes' default: the same number
		out.Target = out.Port
	}
	return out, nil
}

func checkPort(n int32) error {
	if n < 1 || n > 65535 {
		return fmt.Errorf("port %d: out of range 1-65535", n)
	}
	return nil
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("address %q: want an IPv4 or IPv6 address", s)
	}
	return a.Unmap(), nil
}
