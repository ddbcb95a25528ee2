package suite

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// ErrUnknown is what errors of names that mean nobody are.
var ErrUnknown = errors.New("nobody of that name")

// unknown is such an error, in a sentence of its own.
type unknown string

func (u unknown) Error() string        { return string(u) }
func (u unknown) Is(target error) bool { return target == ErrUnknown }

func nobody(format string, args ...any) error { return unknown(fmt.Sprintf(format, args...)) }

// probeEnd finds an end of a probe as the lab does: "namespace/pod", an address, a node, a Service
// (its first address), a pod's bare name. Errors: ErrUnknown, or a name that is known and can have
// no part in a connection.
func (c *Cluster) probeEnd(name string) (Member, error) {
	if w := c.pods[name]; w != nil {
		return c.workload(w)
	}
	if a, err := netip.ParseAddr(name); err == nil {
		return c.address(a)
	}
	if addrs, ok := c.nodes[name]; ok {
		return c.node(name, addrs)
	}
	if addrs := c.vips[name]; len(addrs) > 0 {
		return Member{Addrs: addrs[:1], VIP: true}, nil
	}
	if w := c.bare[name]; w != nil {
		return c.workload(w)
	}
	return Member{}, nobody("%s: no pod, node or Service of the inventory, and no address", name)
}

func (c *Cluster) workload(w *identity.Workload) (Member, error) {
	if len(w.Addrs) == 0 {
		return Member{}, fmt.Errorf("pod %s/%s has no address: it has ended, or another pod has its address", w.Namespace, w.Name)
	}
	return Member{Workload: w, Node: w.Node, Addrs: w.Addrs}, nil
}

func (c *Cluster) node(name string, addrs []netip.Addr) (Member, error) {
	if len(addrs) == 0 {
		return Member{}, fmt.Errorf("node %s has no address in the inventory", name)
	}
	return Member{Node: name, Addrs: addrs}, nil
}

// address is whoever has it: a workload, a node, a Service, or the world.
func (c *Cluster) address(a netip.Addr) (Member, error) {
	a = identity.Normal(a)
	if err := host(a); err != nil {
		return Member{}, err
	}
	if w := c.view.Owner(a); w != nil {
		return Member{Workload: w, Node: w.Node, Addrs: []netip.Addr{a}}, nil
	}
	_, vip := c.view.VIPNames[a]
	return Member{Node: c.nodeOf[a], Addrs: []netip.Addr{a}, VIP: vip && c.nodeOf[a] == ""}, nil
}

// host refuses what cannot be the address of a host.
func host(a netip.Addr) error {
	switch {
	case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("address %s: not a host's", a)
	case a.Is6() && a.IsLinkLocalUnicast():
		return fmt.Errorf("address %s: link-local; it says nothing without an interface", a)
	}
	return nil
}

// Names that mean an end without being anybody's.
const (
	NameWorld = "world" // an address that nobody in the cluster has
	NameNode  = "node"  // the node that the other end runs on
)

// someWorld are addresses that nobody has (RFC 5737, RFC 3849).
var someWorld = []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::1")}

// Find lists everybody that a name of a test or a question means: an address; "world"; a node's name;
// "namespace/pod"; "namespace/service", all workloads of it; "namespace/key=value,…", all workloads
// with these labels; "namespace/name" of a Kubernetes Service that no service is called as; and with
// "vip:" before it, of any Kubernetes Service. other is for "node": it means the nodes that other's
// members run on. Errors: ErrUnknown with the nearest name that is known.
func (c *Cluster) Find(name string, other []Member) ([]Member, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		return one(c.address(a))
	}
	if service, isVIP := strings.CutPrefix(name, "vip:"); isVIP {
		return c.vip(service)
	}
	switch name {
	case NameWorld:
		return []Member{{Addrs: someWorld}}, nil
	case NameNode:
		return c.nodesOf(other)
	}
	if addrs, ok := c.nodes[name]; ok {
		return one(c.node(name, addrs))
	}
	namespace, rest, found := strings.Cut(name, "/")
	if !found || namespace == "" || rest == "" {
		return nil, nobody("%q: want namespace/name, an address, node or world%s", name, c.hint(name))
	}
	if w := c.pods[name]; w != nil {
		return one(c.workload(w))
	}
	if strings.Contains(rest, "=") {
		return c.labelled(namespace, rest)
	}
	if list := c.services[identity.Service{Namespace: namespace, Name: rest}]; len(list) > 0 {
		return members(list), nil
	}
	if len(c.vips[name]) > 0 {
		return c.vip(name)
	}
	return nil, nobody("%q: no pod, service or Service of that name%s", name, c.hint(name))
}

func one(m Member, err error) ([]Member, error) {
	if err != nil {
		return nil, err
	}
	return []Member{m}, nil
}

func members(list []*identity.Workload) []Member {
	var out []Member
	for _, w := range list {
		if len(w.Addrs) > 0 {
			out = append(out, Member{Workload: w, Node: w.Node, Addrs: w.Addrs})
		}
	}
	return out
}

func (c *Cluster) vip(service string) ([]Member, error) {
	if len(c.vips[service]) == 0 {
		return nil, nobody("%q: no Service of that name has an address", service)
	}
	return []Member{{Addrs: c.vips[service], VIP: true}}, nil
}

// nodesOf lists the nodes that members run on.
func (c *Cluster) nodesOf(other []Member) ([]Member, error) {
	var out []Member
	seen := map[string]bool{}
	for _, m := range other {
		if addrs := c.nodes[m.Node]; m.Workload != nil && len(addrs) > 0 && !seen[m.Node] {
			seen[m.Node] = true
			out = append(out, Member{Node: m.Node, Addrs: addrs})
		}
	}
	if len(out) == 0 {
		return nil, errors.New("node: the other end is no workload; name the node")
	}
	return out, nil
}

func (c *Cluster) labelled(namespace, selector string) ([]Member, error) {
	s, err := labels.Parse(selector)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", namespace+"/"+selector, err)
	}
	var out []*identity.Workload
	for _, w := range c.view.In(namespace) {
		if s.Matches(labels.Set(w.Labels)) {
			out = append(out, w)
		}
	}
	if found := members(out); len(found) > 0 {
		return found, nil
	}
	return nil, nobody("%q: no workload of namespace %s has these labels", namespace+"/"+selector, namespace)
}

// hint is the nearest name that is known.
func (c *Cluster) hint(name string) string {
	var known []string
	for p := range c.pods {
		known = append(known, p)
	}
	for s := range c.services {
		known = append(known, s.String())
	}
	for v := range c.vips {
		known = append(known, v)
	}
	known = append(known, c.Nodes()...)
	slices.Sort(known)
	if near := policy.Nearest(name, slices.Compact(known)); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}
