package explain

import (
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// tried says whether a rule, alone in a set of its own that selects this end, matches the connection.
// It stands there as an allowing rule of the native kind, which can say all that the others can but
// nodes.
func (a *asker) tried(p *policy.Policy, r policy.Rule) bool {
	return a.triedOn(p, a.dir, r, a.c)
}

func (a *asker) triedOn(p *policy.Policy, dir policy.Direction, r policy.Rule, c policy.Connection) bool {
	r.Action, r.Expires = policy.ActionAllow, time.Time{}
	alone := policy.Policy{Kind: policy.KindPolicy, Namespace: a.subject.Namespace, Name: "tried"}
	alone.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	if p.Spec.Tier != policy.NamespaceTier {
		alone.Kind, alone.Namespace = policy.KindClusterNetworkPolicy, ""
		alone.Spec = policy.Spec{Tier: policy.AdminTier, NamespaceSelector: &metav1.LabelSelector{}}
	}
	if dir == policy.Ingress {
		alone.Spec.Ingress = []policy.Rule{r}
	} else {
		alone.Spec.Egress = []policy.Rule{r}
	}
	set, err := policy.NewSet(alone)
	if err != nil {
		return false // what the change makes of the rule cannot be said
	}
	d := a.judge(set, c)
	side := d.Ingress
	if dir == policy.Egress {
		side = d.Egress
	}
	return side.Verdict == policy.Allow && side.Rule == name(&alone, dir, 0)
}

func withoutPorts(r policy.Rule) policy.Rule {
	r.Ports = nil
	return r
}

func withoutPeers(r policy.Rule) policy.Rule {
	r.Peers = nil
	return r
}

// peers says which of a rule's peers nearly is the other end, and what keeps it from it; "": none.
func (a *asker) peers(p *policy.Policy, r policy.Rule) string {
	for _, peer := range r.Peers {
		if why := a.peer(p, r, peer); why != "" {
			return why
		}
	}
	return ""
}

func (a *asker) peer(p *policy.Policy, r policy.Rule, peer policy.Peer) string {
	with := func(x policy.Peer) bool {
		r.Peers = []policy.Peer{x}
		return a.tried(p, r)
	}
	if b := peer.IPBlock; b != nil {
		for _, except := range b.Except {
			x := *b
			x.Except = without(b.Except, except)
			if with(policy.Peer{IPBlock: &x}) {
				return fmt.Sprintf("except %s of %s takes %s out", except, b.CIDR, a.otherName())
			}
		}
		return ""
	}
	if peer.PodSelector == nil && peer.NamespaceSelector == nil {
		return ""
	}
	if peer.NamespaceSelector == nil {
		x := peer
		x.NamespaceSelector = &metav1.LabelSelector{}
		if with(x) {
			return fmt.Sprintf("has no namespaceSelector, and so is about pods of namespace %s only; %s is another one", p.Namespace, a.otherName())
		}
	}
	for _, s := range []struct {
		selector *metav1.LabelSelector
		set      func(*policy.Peer, *metav1.LabelSelector)
		whose    string
		labels   identity.Labels
	}{
		{peer.PodSelector, func(x *policy.Peer, l *metav1.LabelSelector) { x.PodSelector = l }, "", a.otherLabels()},
		{peer.NamespaceSelector, func(x *policy.Peer, l *metav1.LabelSelector) { x.NamespaceSelector = l }, "namespace ", a.otherSpaceLabels()},
	} {
		for _, less := range oneLess(s.selector) {
			x := peer
			s.set(&x, less.selector)
			if with(x) {
				return fmt.Sprintf("asks for %slabel %s, and %s%s has %s", s.whose, less.asked, s.whose, a.otherName(), has(s.labels, less.key))
			}
		}
	}
	return ""
}

// variant is a selector that asks for one thing less.
type variant struct {
	selector *metav1.LabelSelector
	key      string
	asked    string
}

func oneLess(s *metav1.LabelSelector) []variant {
	if s == nil {
		return nil
	}
	var out []variant
	for _, k := range sorted(s.MatchLabels) {
		less := s.DeepCopy()
		delete(less.MatchLabels, k)
		out = append(out, variant{less, k, k + "=" + s.MatchLabels[k]})
	}
	for i, e := range s.MatchExpressions {
		less := s.DeepCopy()
		less.MatchExpressions = append(less.MatchExpressions[:i:i], less.MatchExpressions[i+1:]...)
		one := metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{e}}
		out = append(out, variant{less, e.Key, metav1.FormatLabelSelector(&one)})
	}
	return out
}

func has(l identity.Labels, key string) string {
	if value, ok := l[key]; ok {
		return key + "=" + value
	}
	return "none of that name"
}

// elsewhere finds rules that would allow, of a policy that does not select this end for one label.
func (a *asker) elsewhere(p *policy.Policy) []Rule {
	if p.Spec.Tier != policy.NamespaceTier || p.Namespace != a.subject.Namespace {
		return nil
	}
	for _, less := range oneLess(&p.Spec.PodSelector) {
		if !selects(less.selector, a.subject.Labels) {
			continue
		}
		for i, r := range p.Rules(a.dir) {
			if r.Action == policy.ActionAllow && a.tried(p, r) {
				return []Rule{{Rule: name(p, a.dir, i), Source: p.At(path(a.dir, i)), Action: r.Action.String(), Match: Near,
					Why: fmt.Sprintf("would allow it, but its policy selects %s, and %s/%s has %s", less.asked, a.subject.Namespace, a.subject.Name, has(a.subject.Labels, less.key))}}
			}
		}
	}
	return nil
}

// turned finds rules that say in the other direction what is missing in this one: who writes ingress
// means egress now and then.
func (a *asker) turned(p *policy.Policy) []Rule {
	back := a.c
	back.Client, back.Server = a.c.Server, a.c.Client
	d := opposite(a.dir)
	for i, r := range p.Rules(d) {
		if r.Action == policy.ActionAllow && len(r.Peers) > 0 && a.triedOn(p, d, r, back) {
			return []Rule{{Rule: name(p, d, i), Source: p.At(path(d, i)), Action: r.Action.String(), Match: Near,
				Why: fmt.Sprintf("allows the other direction: it is %s, and this is %s of %s/%s", d, a.dir, a.subject.Namespace, a.subject.Name)}}
		}
	}
	return nil
}

func without(list []string, s string) []string {
	var out []string
	for _, x := range list {
		if x != s {
			out = append(out, x)
		}
	}
	return out
}

func name(p *policy.Policy, d policy.Direction, i int) string {
	return fmt.Sprintf("%s %s[%d]", p, d, i)
}

func path(d policy.Direction, i int) string { return fmt.Sprintf("spec.%s[%d]", d, i) }

func (a *asker) other() identity.Peer {
	if a.dir == policy.Egress {
		return a.c.Server
	}
	return a.c.Client
}

func (a *asker) otherName() string {
	p := a.other()
	switch {
	case p.Workload != nil:
		return p.Workload.Namespace + "/" + p.Workload.Name
	case p.Kind == identity.World && p.Addr.IsValid():
		return p.Addr.String()
	}
	return p.String()
}

func (a *asker) otherLabels() identity.Labels {
	if w := a.other().Workload; w != nil {
		return w.Labels
	}
	return nil
}

func (a *asker) otherSpaceLabels() identity.Labels {
	if w := a.other().Workload; w != nil {
		return w.NamespaceLabels
	}
	return nil
}

func portName(c policy.Connection) string {
	if c.Protocol.IsICMP() {
		return fmt.Sprintf("%s type %d", c.Protocol, c.Port)
	}
	return fmt.Sprintf("%s/%d", c.Protocol, c.Port)
}

func ports(r policy.Rule) string {
	var out []string
	for _, p := range r.Ports {
		out = append(out, p.String())
	}
	return strings.Join(out, ", ")
}
