package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// Set is policies that hold together. It never changes: With and Without make another.
type Set struct {
	policies []*compiled            // by namespace, name, kind
	spaces   map[string][]*compiled // the same by namespace
}

// compiled is a policy whose selectors, blocks and ports have been read.
type compiled struct {
	*Policy
	selects *selector
	egress  *half // nil: the policy does not isolate egress
	ingress *half
}

// half is what a policy says of one direction.
type half struct{ rules []rule }

type rule struct {
	name  string // "shop/cart ingress[0]"
	who   string // its peers, for people
	what  string // its ports, for people
	peers []peer // empty: everybody
	ports []ports
}

// peer is one Peer, read. Exactly one of its three forms is set.
type peer struct {
	selects bool // by labels; then
	own     string
	pods    *selector // nil: every pod
	spaces  *selector // nil: the namespace own

	block  netip.Prefix // by address
	except []netip.Prefix
	pieces []netip.Prefix // block without except

	network string // by name
}

// ports is one Port, read.
type ports struct {
	protocol  identity.Protocol
	name      string // to be looked up at each server
	low, high uint16
}

// NewSet compiles policies. Errors: a policy that means nothing (see [Parse]), or two of the same
// kind, namespace and name; all of them, joined.
func NewSet(policies ...Policy) (*Set, error) {
	var errs []error
	seen := map[Key]*Policy{}
	list := make([]*compiled, 0, len(policies))
	for i := range policies {
		p := &policies[i]
		if first := seen[p.Key()]; first != nil {
			errs = append(errs, fmt.Errorf("%s%s is defined already%s", place(p), p.Key(), where(first)))
			continue
		}
		seen[p.Key()] = p
		c, err := compile(*p)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, c)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return newSet(list), nil
}

func newSet(list []*compiled) *Set {
	slices.SortFunc(list, func(a, b *compiled) int { return compareKeys(a.Key(), b.Key()) })
	s := &Set{policies: list, spaces: map[string][]*compiled{}}
	for _, c := range list {
		s.spaces[c.Namespace] = append(s.spaces[c.Namespace], c)
	}
	return s
}

func place(p *Policy) string {
	if p.Source == "" {
		return ""
	}
	return p.Source + ": "
}

func where(p *Policy) string {
	if p.Source == "" {
		return ""
	}
	return " at " + p.Source
}

func compareKeys(a, b Key) int {
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	return strings.Compare(a.Kind, b.Kind)
}

// With is the set with policies added, or put in the place of those with the same key. Errors: as
// [NewSet]; the same key twice in policies too.
func (s *Set) With(policies ...Policy) (*Set, error) {
	fresh, err := NewSet(policies...)
	if err != nil {
		return nil, err
	}
	list := slices.Clone(fresh.policies)
	for _, c := range s.policies {
		if fresh.Find(c.Key()) == nil {
			list = append(list, c)
		}
	}
	return newSet(list), nil
}

// Without is the set without policies of these keys. Keys that it does not hold do not matter.
func (s *Set) Without(keys ...Key) *Set {
	var list []*compiled
	for _, c := range s.policies {
		if !slices.Contains(keys, c.Key()) {
			list = append(list, c)
		}
	}
	return newSet(list)
}

// Len is how many policies it holds.
func (s *Set) Len() int { return len(s.policies) }

// Policies lists them, by namespace, name and kind. They must not be written to.
func (s *Set) Policies() []*Policy {
	out := make([]*Policy, len(s.policies))
	for i, c := range s.policies {
		out[i] = c.Policy
	}
	return out
}

// Find gives the policy of that key, or nil.
func (s *Set) Find(k Key) *Policy {
	for _, c := range s.spaces[k.Namespace] {
		if c.Key() == k {
			return c.Policy
		}
	}
	return nil
}

// Selecting lists the policies that select a workload and isolate that direction of it, by name.
// Workloads in the node's own network namespace are never selected: their traffic cannot be told
// from the node's.
//
// "The most common case is … hostNetwork pods are ignored when matching podSelector and
// namespaceSelector" (Kubernetes, Network Policies, "hostNetwork pods").
func (s *Set) Selecting(w *identity.Workload, d Direction) []*Policy {
	var out []*Policy
	for _, c := range s.selecting(w, d) {
		out = append(out, c.Policy)
	}
	return out
}

func (s *Set) selecting(w *identity.Workload, d Direction) []*compiled {
	if w == nil || w.HostNetwork {
		return nil
	}
	var out []*compiled
	for _, c := range s.spaces[w.Namespace] {
		if c.half(d) != nil && c.selects.matches(w.Labels) {
			out = append(out, c)
		}
	}
	return out
}

func (c *compiled) half(d Direction) *half {
	if d == Ingress {
		return c.ingress
	}
	return c.egress
}

func compile(p Policy) (*compiled, error) {
	if bad := check(&p); len(bad) > 0 {
		errs := make([]error, len(bad))
		for i, b := range bad {
			errs[i] = fmt.Errorf("%s%s: %s: %s", place(&p), p.Key(), b.path, b.what)
		}
		return nil, errors.Join(errs...)
	}
	c := &compiled{Policy: &p, selects: compileSelector(&p.Spec.PodSelector)}
	for _, d := range []Direction{Egress, Ingress} {
		if !p.Isolates(d) {
			continue
		}
		h := &half{}
		for i, r := range p.Rules(d) {
			h.rules = append(h.rules, compileRule(&p, p.ruleName(d, i), r))
		}
		if d == Ingress {
			c.ingress = h
		} else {
			c.egress = h
		}
	}
	return c, nil
}

func compileRule(p *Policy, name string, r Rule) rule {
	out := rule{name: name, who: describeAll(r.Peers), what: describeAll(r.Ports)}
	for _, x := range r.Peers {
		out.peers = append(out.peers, compilePeer(p, x))
	}
	for _, x := range r.Ports {
		out.ports = append(out.ports, compilePort(x))
	}
	return out
}

func compilePeer(p *Policy, x Peer) peer {
	if x.IPBlock != nil {
		// check has read them all once.
		out := peer{}
		out.block, _ = parseCIDR(x.IPBlock.CIDR)
		for _, text := range x.IPBlock.Except {
			e, _ := parseCIDR(text)
			out.except = append(out.except, e)
		}
		out.except = identity.Union(out.except)
		out.pieces = identity.Subtract(out.block, out.except)
		return out
	}
	if x.Network != "" {
		return peer{network: x.Network}
	}
	return peer{
		selects: true, own: p.Namespace,
		pods: compileSelector(x.PodSelector), spaces: compileSelector(x.NamespaceSelector),
	}
}

func compilePort(x Port) ports {
	out := ports{protocol: x.Protocol, high: 65535}
	if out.protocol == identity.AnyProtocol {
		out.protocol = identity.TCP
	}
	switch {
	case x.Port == nil:
	case x.Port.Type == intstr.String:
		out.name = x.Port.StrVal
	default:
		out.low = uint16(x.Port.IntVal)
		out.high = out.low
		if x.EndPort != nil {
			out.high = uint16(*x.EndPort)
		}
	}
	return out
}
