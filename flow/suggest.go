package flow

import (
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Format is the kind of policy that Suggest writes.
type Format string

const (
	Native     Format = "native"     // bulkhead.dev/v1alpha1 Policy
	Kubernetes Format = "kubernetes" // networking.k8s.io/v1 NetworkPolicy: what it cannot say becomes a comment
)

// Options say what Suggest writes.
type Options struct {
	Namespace  string // only services of it; empty: all
	Service    string // only this "namespace/name"; empty: all
	Format     Format // default Native
	LabelOrder []string
	Nodes      map[string]bool // other nodes that told what they saw: it is among the edges
}

// Suggestion is what the flows say of one service.
type Suggestion struct {
	Service identity.Service
	Policy  *policy.Policy // nil: there is none, and Notes say why
	Notes   []string       // why there is no policy; what a policy has to say is in its comments
}

// Suggest turns edges into policies that allow what was seen and nothing else: one for each service
// that has evidence. The result depends on which edges are Allowed, on the workloads now known, and
// on the order of magnitude of counts: not on the order of the edges.
//
// A direction without evidence is not isolated, since silence proves nothing; a comment says so.
// What policy allows by itself (the own node's probes, asking the resolvers) is no evidence either.
// An edge that is not Allowed is left out, and named in a comment. Every selector selects exactly the
// workloads that the flows are of; where labels cannot do that, a comment names the generalisation,
// and no policy is written for a service that cannot be selected.
func Suggest(edges []Edge, v *identity.View, o Options) []Suggestion {
	if len(o.LabelOrder) == 0 {
		o.LabelOrder = identity.DefaultLabelOrder
	}
	if o.Format == "" {
		o.Format = Native
	}
	edges = slices.Clone(edges)
	slices.SortFunc(edges, func(a, b Edge) int { return a.Key.Compare(b.Key) })
	s := &suggester{view: v, Options: o, members: make(map[identity.Service][]*identity.Workload),
		in: make(map[identity.Service][]*Edge), out: make(map[identity.Service][]*Edge), reviews: Reviews(edges)}
	for _, w := range v.Workloads {
		if !w.HostNetwork {
			s.members[w.Service] = append(s.members[w.Service], w)
		}
	}
	for _, e := range s.resolve(edges) {
		if e.Server.Kind == identity.Pod {
			s.in[e.Server.Service] = append(s.in[e.Server.Service], e)
		}
		if e.Client.Kind == identity.Pod {
			s.out[e.Client.Service] = append(s.out[e.Client.Service], e)
		}
	}
	var all []Suggestion
	for _, svc := range s.services() {
		all = append(all, s.suggest(svc))
	}
	return all
}

// suggester holds what all services need.
type suggester struct {
	Options
	view    *identity.View
	members map[identity.Service][]*identity.Workload // by ID
	in, out map[identity.Service][]*Edge
	reviews map[Key]string
}

// resolve names what was a virtual address with nothing behind it when it was dialled, and has
// workloads now.
func (s *suggester) resolve(edges []Edge) []*Edge {
	var out []*Edge
	for i := range edges {
		e := &edges[i]
		targets := s.nowBehind(e)
		if len(targets) == 0 {
			out = append(out, e)
		}
		for _, b := range targets {
			c := e.clone()
			c.Server, c.Port = EndOf(identity.Peer{Kind: identity.Pod, Workload: b.Workload}), b.Port
			out = append(out, &c)
		}
	}
	return out
}

func (s *suggester) nowBehind(e *Edge) []identity.Backend {
	if e.Server.Kind != identity.VIP {
		return nil
	}
	var out []identity.Backend
	for _, it := range e.VIPs.Items {
		for _, b := range s.view.Backends(it.What.Key) {
			if !slices.ContainsFunc(out, func(o identity.Backend) bool { return sameTarget(o, b) }) {
				out = append(out, b)
			}
		}
	}
	return out
}

// services lists those that the options ask for, known now or seen in flows.
func (s *suggester) services() []identity.Service {
	set := map[identity.Service]bool{}
	for svc := range s.members {
		set[svc] = true
	}
	for _, m := range []map[identity.Service][]*Edge{s.in, s.out} {
		for svc := range m {
			set[svc] = true
		}
	}
	var list []identity.Service
	for svc := range set {
		if (s.Namespace == "" || svc.Namespace == s.Namespace) && (s.Service == "" || svc.String() == s.Service) {
			list = append(list, svc)
		}
	}
	slices.SortFunc(list, func(a, b identity.Service) int {
		return End{Kind: identity.Pod, Service: a}.Compare(End{Kind: identity.Pod, Service: b})
	})
	return list
}

// suggest writes the policy of one service.
func (s *suggester) suggest(svc identity.Service) Suggestion {
	none := func(format string, args ...any) Suggestion {
		return Suggestion{Service: svc, Notes: []string{svc.String() + ": no policy: " + fmt.Sprintf(format, args...)}}
	}
	members := s.members[svc]
	here := 0
	for _, w := range members {
		if w.Local || s.Nodes[w.Node] {
			here++
		}
	}
	switch {
	case len(members) == 0:
		return none("no workload of it is known now")
	case here == 0:
		return none("its workloads run on other nodes, and what they do was not seen here")
	}
	selector, exact := s.selectorOf(svc)
	if !exact {
		return none("no labels tell its workloads from others of namespace %s; give them a label of their own, for example app=%s", svc.Namespace, svc.Name)
	}
	p := &policy.Policy{Kind: policy.KindPolicy, Namespace: svc.Namespace, Name: objectName(svc.Name)}
	if s.Format == Kubernetes {
		p.Kind = policy.KindNetworkPolicy
	}
	p.Spec.PodSelector = selector
	p.Comment = []string{"What " + svc.String() + " was seen to do."}
	if here < len(members) {
		p.Comment = append(p.Comment, "Some of its workloads run on other nodes, and were not seen here.")
	}
	ingress, inNotes := s.side(svc, policy.Ingress, s.in[svc])
	egress, outNotes := s.side(svc, policy.Egress, s.out[svc])
	notes := append(inNotes, outNotes...)
	if len(ingress) > 0 {
		p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeIngress)
		p.Spec.Ingress = ingress
	}
	if len(egress) > 0 {
		p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		p.Spec.Egress = egress
	}
	if len(p.Spec.PolicyTypes) == 0 {
		out := none("nothing was seen that it would need")
		out.Notes = append(out.Notes, indent(notes)...)
		return out
	}
	p.Comment = append(p.Comment, notes...)
	if _, err := policy.NewSet(*p); err != nil {
		return none("it cannot be written: %s", clean(err.Error()))
	}
	return Suggestion{Service: svc, Policy: p}
}

func indent(lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = "  " + l
	}
	return out
}

// clean keeps names that somebody else chose from ending a comment.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 {
			return '?'
		}
		return r
	}, s)
}
