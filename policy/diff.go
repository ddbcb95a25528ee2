package policy

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Difference is what a change of the set does to single policies, by "Kind namespace/name", sorted
// by namespace and name.
type Difference struct {
	Created   []Key
	Changed   []Key
	Unchanged []Key
	Removed   []Key
}

// Compare tells how to get from one set to another. What a policy means counts, not how it is
// written: comments, order of keys, empty lists for absent ones, a default spelled out. Labels and
// annotations count as written.
func Compare(from, to *Set) Difference {
	var d Difference
	for _, c := range to.policies {
		switch old := from.Find(c.Key()); {
		case old == nil:
			d.Created = append(d.Created, c.Key())
		case same(old, c.Policy):
			d.Unchanged = append(d.Unchanged, c.Key())
		default:
			d.Changed = append(d.Changed, c.Key())
		}
	}
	for _, c := range from.policies {
		if to.Find(c.Key()) == nil {
			d.Removed = append(d.Removed, c.Key())
		}
	}
	return d
}

// Empty says whether nothing changes.
func (d Difference) Empty() bool { return len(d.Created)+len(d.Changed)+len(d.Removed) == 0 }

// Strings names keys for people: "NetworkPolicy shop/cart".
func Strings(keys []Key) []string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = k.String()
	}
	return out
}

func same(a, b *Policy) bool {
	x, y := &a.Spec, &b.Spec
	if !maps.Equal(a.Labels, b.Labels) || !maps.Equal(a.Annotations, b.Annotations) || a.Shadow != b.Shadow ||
		!reflect.DeepEqual(plainSelector(&x.PodSelector), plainSelector(&y.PodSelector)) ||
		!reflect.DeepEqual(plainSelector(x.NamespaceSelector), plainSelector(y.NamespaceSelector)) ||
		x.Tier != y.Tier || x.Severity != y.Severity || x.Reason != y.Reason || x.OnDeny != y.OnDeny || statedPriority(a) != statedPriority(b) {
		return false
	}
	for _, d := range []Direction{Egress, Ingress} {
		if a.Isolates(d) != b.Isolates(d) || !slices.EqualFunc(a.Rules(d), b.Rules(d), sameRule) {
			return false
		}
	}
	return true
}

// statedPriority is a policy's priority, the default where it states none.
func statedPriority(p *Policy) int32 {
	if !isCluster(p.Kind) && p.Spec.Priority == 0 {
		return defaultPriority
	}
	return p.Spec.Priority
}

func sameRule(a, b Rule) bool {
	return a.Name == b.Name && a.Action == b.Action && a.Expires.Equal(b.Expires) && a.Severity == b.Severity && a.Reason == b.Reason && slices.EqualFunc(a.Peers, b.Peers, func(x, y Peer) bool { return reflect.DeepEqual(plainPeer(x), plainPeer(y)) }) &&
		slices.EqualFunc(a.Ports, b.Ports, func(x, y Port) bool { return compilePort(x) == compilePort(y) })
}

// plainPeer is a peer in the one form that is compared. Text forms of one block are the same.
func plainPeer(p Peer) any {
	var block []any
	if p.IPBlock != nil {
		cidr, _ := parseCIDR(p.IPBlock.CIDR)
		block = append(block, cidr)
		var except []string
		for _, text := range p.IPBlock.Except {
			e, _ := parseCIDR(text)
			except = append(except, e.String())
		}
		slices.Sort(except)
		block = append(block, fmt.Sprint(except))
	}
	var service ServiceRef
	if p.Service != nil {
		service = *p.Service
	}
	return []any{p.Network, block, service, p.DNSName, plainSelector(p.PodSelector), plainSelector(p.NamespaceSelector), plainSelector(p.NodeSelector)}
}

// plainSelector is a selector's terms, sorted; nil stays apart from empty.
func plainSelector(s *metav1.LabelSelector) []string {
	if s == nil {
		return nil
	}
	out := []string{}
	for _, t := range compileSelector(s).terms {
		values := slices.Clone(t.values)
		slices.Sort(values)
		out = append(out, fmt.Sprintf("%q %s %q", t.key, t.op, values))
	}
	slices.Sort(out)
	return out
}

// SameEntries says whether two sides hold the same in the kernel: rules' names do not count.
func SameEntries(a, b Side) bool {
	return a.Isolated == b.Isolated && slices.EqualFunc(a.Entries, b.Entries, func(x, y Entry) bool {
		x.Rule, y.Rule = "", ""
		return x == y
	})
}
