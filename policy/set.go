package policy

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// Set is policies that hold together. It never changes: With, Without, At and Promoted make others.
type Set struct {
	policies []*compiled            // in force, by namespace, name, kind
	spaces   map[string][]*compiled // the namespaced ones of them by namespace, in the order of their tier
	tiers    [3][]*compiled         // the cluster-wide ones by tier, in its order
	shadows  []*compiled            // judged beside, by namespace, name, kind
	links    links                  // see linked
}

// compiled is a policy whose selectors, blocks and ports have been read.
type compiled struct {
	*Policy
	selects *selector
	spaces  *selector // of a cluster-wide policy: the namespaces; nil: the policy's own
	egress  *half     // nil: the policy says nothing of egress
	ingress *half
}

// half is what a policy says of one direction.
type half struct {
	isolates bool
	rules    []rule
}

type rule struct {
	policy   *compiled
	dir      Direction
	index    int
	name     string // "shop/cart ingress[0]"
	who      string // its peers, for people
	what     string // its ports, for people
	action   Action
	expires  time.Time
	peers    []peer // empty: everybody
	ports    []ports
	severity string
	note     string
}

// peer is one Peer, read. Exactly one of its forms is set.
type peer struct {
	selects bool // by labels; then
	own     string
	pods    *selector // nil: every pod
	spaces  *selector // nil: the namespace own

	block  netip.Prefix // by address
	except []netip.Prefix
	pieces []netip.Prefix // block without except

	network string // by name

	service *ServiceRef // the workloads behind it; its namespace is filled in

	dnsName string // by what resolvers say

	nodes *selector // nodes by their labels
}

// ports is one Port, read.
type ports struct {
	protocol  identity.Protocol
	name      string // to be looked up at each server
	low, high uint16
}

// NewSet compiles policies. Errors: a policy that means nothing (see [Parse]), or two of the same
// kind, namespace and name, of which one may be a shadow; all of them, joined.
func NewSet(policies ...Policy) (*Set, error) {
	type slot struct {
		Key
		shadow bool
	}
	var errs []error
	seen := make(map[slot]*Policy, len(policies))
	list := make([]*compiled, 0, len(policies))
	for i := range policies {
		p := &policies[i]
		at := slot{p.Key(), p.Shadow}
		if first := seen[at]; first != nil {
			errs = append(errs, fmt.Errorf("%s%s is defined already%s", place(p), p.Key(), where(first)))
			continue
		}
		seen[at] = p
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

// newSet puts compiled policies in their places.
func newSet(list []*compiled) *Set {
	slices.SortFunc(list, func(a, b *compiled) int { return compareKeys(a.Key(), b.Key()) })
	s := &Set{policies: make([]*compiled, 0, len(list)), spaces: map[string][]*compiled{}}
	for _, c := range list {
		switch {
		case c.Shadow:
			s.shadows = append(s.shadows, c)
			continue
		case c.spaces != nil:
			s.tiers[c.Spec.Tier] = append(s.tiers[c.Spec.Tier], c)
		default:
			s.spaces[c.Namespace] = append(s.spaces[c.Namespace], c)
		}
		s.policies = append(s.policies, c)
	}
	for _, tier := range s.tiers {
		slices.SortStableFunc(tier, comparePriorities)
	}
	for _, list := range s.spaces {
		slices.SortStableFunc(list, comparePriorities)
	}
	return s
}

// comparePriorities orders policies of a tier: "Policies with lower priority values have higher
// precedence." The same priority goes by name, as the list is sorted.
func comparePriorities(a, b *compiled) int { return cmp.Compare(a.priority(), b.priority()) }

// defaultPriority is every NetworkPolicy's, and a native policy's that states none.
const defaultPriority = 1000

// priority within its tier.
func (c *compiled) priority() int32 {
	if c.spaces == nil && (c.Kind == KindNetworkPolicy || c.Spec.Priority == 0) {
		return defaultPriority
	}
	return c.Spec.Priority
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

// With is the set with policies added, or put in the place of those with the same key; a shadow takes
// a shadow's place. Errors: as [NewSet]; the same key twice in policies too.
func (s *Set) With(policies ...Policy) (*Set, error) {
	fresh, err := NewSet(policies...)
	if err != nil {
		return nil, err
	}
	return newSet(slices.Concat(fresh.policies, fresh.shadows,
		others(s.policies, fresh.policies), others(s.shadows, fresh.shadows))), nil
}

// others are the policies whose key none of the fresh ones has.
func others(old, fresh []*compiled) []*compiled {
	taken := make(map[Key]bool, len(fresh))
	for _, c := range fresh {
		taken[c.Key()] = true
	}
	var out []*compiled
	for _, c := range old {
		if !taken[c.Key()] {
			out = append(out, c)
		}
	}
	return out
}

// Without is the set without policies of these keys, and their shadows. Keys that it does not hold do
// not matter.
func (s *Set) Without(keys ...Key) *Set {
	gone := make(map[Key]bool, len(keys))
	for _, k := range keys {
		gone[k] = true
	}
	var list []*compiled
	for _, c := range slices.Concat(s.policies, s.shadows) {
		if !gone[c.Key()] {
			list = append(list, c)
		}
	}
	return newSet(list)
}

// Shadows lists the policies that are judged beside those in force, by namespace, name and kind. They
// must not be written to.
func (s *Set) Shadows() []*Policy { return policiesOf(s.shadows) }

// Promoted is the set with the shadows of these keys, or all of them if none is given, in force, in the
// place of what is in force under the same key.
func (s *Set) Promoted(keys ...Key) *Set {
	meant := make(map[Key]bool, len(keys))
	for _, k := range keys {
		meant[k] = true
	}
	var up, rest []*compiled
	for _, c := range s.shadows {
		if len(keys) > 0 && !meant[c.Key()] {
			rest = append(rest, c)
			continue
		}
		p := *c.Policy
		p.Shadow = false
		promoted := *c
		promoted.Policy = &p
		up = append(up, promoted.again())
	}
	return newSet(slices.Concat(up, rest, others(s.policies, up)))
}

// again makes the rules of a copied policy point to the copy.
func (c compiled) again() *compiled {
	out := &c
	for _, h := range []**half{&out.egress, &out.ingress} {
		if *h == nil {
			continue
		}
		copied := half{isolates: (*h).isolates, rules: slices.Clone((*h).rules)}
		for i := range copied.rules {
			copied.rules[i].policy = out
		}
		*h = &copied
	}
	return out
}

// At is the set as it is at a time: without the rules that have expired by then. A policy goes on
// isolating what it selects. It is the same set where nothing has expired.
func (s *Set) At(t time.Time) *Set {
	expired := func(r rule) bool { return !r.expires.IsZero() && !t.Before(r.expires) }
	changed := false
	list := make([]*compiled, 0, len(s.policies)+len(s.shadows))
	for _, c := range slices.Concat(s.policies, s.shadows) {
		if c.hasRule(expired) {
			changed = true
			c = c.again()
			for _, h := range []*half{c.egress, c.ingress} {
				if h != nil {
					h.rules = slices.DeleteFunc(h.rules, expired)
				}
			}
		}
		list = append(list, c)
	}
	if !changed {
		return s
	}
	return newSet(list)
}

func (c *compiled) hasRule(so func(rule) bool) bool {
	return c.egress != nil && slices.ContainsFunc(c.egress.rules, so) || c.ingress != nil && slices.ContainsFunc(c.ingress.rules, so)
}

// NextExpiry is when the next rule expires after a time; false: none does.
func (s *Set) NextExpiry(after time.Time) (time.Time, bool) {
	var next time.Time
	for _, c := range slices.Concat(s.policies, s.shadows) {
		for _, h := range []*half{c.egress, c.ingress} {
			if h == nil {
				continue
			}
			for _, r := range h.rules {
				if r.expires.After(after) && (next.IsZero() || r.expires.Before(next)) {
					next = r.expires
				}
			}
		}
	}
	return next, !next.IsZero()
}

// Len is how many policies it holds in force.
func (s *Set) Len() int { return len(s.policies) }

// Policies lists those in force, by namespace, name and kind. They must not be written to.
func (s *Set) Policies() []*Policy { return policiesOf(s.policies) }

func policiesOf(list []*compiled) []*Policy {
	out := make([]*Policy, len(list))
	for i, c := range list {
		out[i] = c.Policy
	}
	return out
}

// Find gives the policy in force of that key, or nil.
func (s *Set) Find(k Key) *Policy { return find(s.policies, k) }

// FindShadow gives the shadow of that key, or nil.
func (s *Set) FindShadow(k Key) *Policy { return find(s.shadows, k) }

func find(sorted []*compiled, k Key) *Policy {
	i, ok := slices.BinarySearchFunc(sorted, k, func(c *compiled, k Key) int { return compareKeys(c.Key(), k) })
	if !ok {
		return nil
	}
	return sorted[i].Policy
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
		if c.half(d).isolates {
			out = append(out, c.Policy)
		}
	}
	return out
}

// About lists all policies that have a say about a workload in that direction, in the order in which
// they are asked: also those that isolate nothing.
func (s *Set) About(w *identity.Workload, d Direction) []*Policy {
	var out []*Policy
	for _, tier := range [][]*compiled{s.cluster(AdminTier, w, d), s.selecting(w, d), s.cluster(BaselineTier, w, d)} {
		out = append(out, policiesOf(tier)...)
	}
	return out
}

// selecting lists the namespaced policies about a workload, in the order of their tier.
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

// cluster lists a tier's policies about a workload, in its order.
func (s *Set) cluster(tier Tier, w *identity.Workload, d Direction) []*compiled {
	if w == nil || w.HostNetwork {
		return nil
	}
	var out []*compiled
	for _, c := range s.tiers[tier] {
		if c.half(d) != nil && c.selected(w) {
			out = append(out, c)
		}
	}
	return out
}

// selected says whether the policy is about a workload.
func (c *compiled) selected(w *identity.Workload) bool {
	if w.HostNetwork || !c.selects.matches(w.Labels) {
		return false
	}
	if c.spaces != nil {
		return c.spaces.matches(w.NamespaceLabels)
	}
	return w.Namespace == c.Namespace
}

func (c *compiled) half(d Direction) *half {
	if d == Ingress {
		return c.ingress
	}
	return c.egress
}
