package explain

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// fix finds the smallest change that allows what this end denies: a port more in a rule that is about
// the peer, a peer more in a rule that is about the port, a rule more. What a written rule denies needs
// that rule changed, which is for people to decide.
func (a *asker) fix(d policy.SideDecision, rules []Rule) *Fix {
	if d.Rule != "" {
		return a.undeny(d.Rule)
	}
	for _, try := range []func(p *policy.Policy) *Fix{a.addPort, a.addPeer, a.addRule} {
		for _, p := range a.set.Selecting(a.subject, a.dir) {
			if p.Kind != policy.KindNetworkPolicy && p.Kind != policy.KindPolicy {
				continue
			}
			if f := try(p); f != nil {
				return f
			}
		}
	}
	return a.addPolicy()
}

// addPolicy is for what the kinds of the policies that are there cannot say, such as ICMP.
func (a *asker) addPolicy() *Fix {
	for _, p := range a.set.Selecting(a.subject, a.dir) {
		out := policy.Policy{Kind: policy.KindPolicy, Namespace: a.subject.Namespace, Name: p.Name + "-" + strings.ToLower(a.c.Protocol.String())}
		out.Spec = policy.Spec{PodSelector: p.Spec.PodSelector}
		a.put(&out.Spec, policy.Rule{Peers: []policy.Peer{a.peerOf(&out)}, Ports: []policy.Port{a.port()}})
		if a.allows(out) {
			return &Fix{Text: fmt.Sprintf("add a policy beside %s", p.Key()), YAML: document(out)}
		}
	}
	return nil
}

// undeny says where the denying rule is.
func (a *asker) undeny(rule string) *Fix {
	for _, p := range a.set.Policies() {
		for i := range p.Rules(a.dir) {
			if name(p, a.dir, i) != rule {
				continue
			}
			text := fmt.Sprintf("%s denies it: take %s out of it, or allow it in a policy that is asked first", where(p, path(a.dir, i)), a.otherName())
			if p.Spec.Tier != policy.NamespaceTier {
				return &Fix{Text: text + " (a rule before it in the " + p.Spec.Tier.String() + " tier)"}
			}
			if len(a.set.Selecting(a.subject, a.dir)) == 0 {
				return &Fix{Text: text} // a policy that allows would isolate it, and deny all else
			}
			out := policy.Policy{Kind: policy.KindPolicy, Namespace: p.Namespace, Name: p.Name + "-exception"}
			out.Spec = policy.Spec{PodSelector: metav1.LabelSelector{MatchLabels: naming(a.subject)}, Priority: max(priority(p)-1, 1)}
			a.put(&out.Spec, policy.Rule{Peers: []policy.Peer{a.peerOf(p)}, Ports: []policy.Port{a.port()}})
			if !a.allows(out) {
				return &Fix{Text: text}
			}
			return &Fix{Text: text, YAML: document(out)}
		}
	}
	return nil
}

func priority(p *policy.Policy) int32 {
	if p.Spec.Priority == 0 {
		return 1000
	}
	return p.Spec.Priority
}

func document(p policy.Policy) string {
	b, err := policy.Marshal(p)
	if err != nil {
		return ""
	}
	return string(b)
}

// allows says whether this end allows the connection when a policy is put in the set.
func (a *asker) allows(p policy.Policy) bool {
	next, err := a.set.With(p)
	return err == nil && a.decision(next, a.c).Verdict == policy.Allow
}

func (a *asker) put(s *policy.Spec, r policy.Rule) {
	if a.dir == policy.Ingress {
		s.Ingress = append(s.Ingress, r)
	} else {
		s.Egress = append(s.Egress, r)
	}
	s.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	if a.dir == policy.Egress {
		s.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	}
}

// changed is a copy of a policy with rule i of this direction changed.
func (a *asker) changed(p *policy.Policy, i int, change func(*policy.Rule)) policy.Policy {
	out := *p
	rules := slices.Clone(p.Rules(a.dir))
	change(&rules[i])
	if a.dir == policy.Ingress {
		out.Spec.Ingress = rules
	} else {
		out.Spec.Egress = rules
	}
	return out
}

func (a *asker) addPort(p *policy.Policy) *Fix {
	for i, r := range p.Rules(a.dir) {
		if r.Action != policy.ActionAllow || len(r.Ports) == 0 || !a.tried(p, withoutPorts(r)) {
			continue
		}
		port := a.port()
		if a.allows(a.changed(p, i, func(r *policy.Rule) { r.Ports = append(slices.Clone(r.Ports), port) })) {
			return &Fix{Text: "add to " + where(p, path(a.dir, i)+".ports"), YAML: snippet([]any{portYAML(port)})}
		}
	}
	return nil
}

func (a *asker) addPeer(p *policy.Policy) *Fix {
	for i, r := range p.Rules(a.dir) {
		if r.Action != policy.ActionAllow || len(r.Peers) == 0 || !a.tried(p, withoutPeers(r)) {
			continue
		}
		peer := a.peerOf(p)
		if a.allows(a.changed(p, i, func(r *policy.Rule) { r.Peers = append(slices.Clone(r.Peers), peer) })) {
			return &Fix{Text: "add to " + where(p, path(a.dir, i)+"."+fromOrTo(a.dir)), YAML: snippet([]any{peerYAML(peer)})}
		}
	}
	return nil
}

func (a *asker) addRule(p *policy.Policy) *Fix {
	peer, port := a.peerOf(p), a.port()
	r := policy.Rule{Peers: []policy.Peer{peer}, Ports: []policy.Port{port}}
	out := *p
	if a.dir == policy.Ingress {
		out.Spec.Ingress = append(slices.Clone(p.Spec.Ingress), r)
	} else {
		out.Spec.Egress = append(slices.Clone(p.Spec.Egress), r)
	}
	if len(p.Spec.PolicyTypes) == 0 && a.dir == policy.Egress && len(p.Spec.Egress) == 0 || !a.allows(out) {
		return nil
	}
	rule := map[string]any{fromOrTo(a.dir): []any{peerYAML(peer)}, "ports": []any{portYAML(port)}}
	return &Fix{Text: "add to " + where(p, "spec."+a.dir.String()), YAML: snippet([]any{rule})}
}

func fromOrTo(d policy.Direction) string {
	if d == policy.Ingress {
		return "from"
	}
	return "to"
}

// where names a field of a policy, with its place in the files.
func where(p *policy.Policy, field string) string {
	text := fmt.Sprintf("%s of %s", field, p.Key())
	if at := p.At(field); at != "" {
		text += " (" + at + ")"
	}
	return text
}

func (a *asker) port() policy.Port { return policy.PortNumber(a.c.Protocol, a.c.Port) }

// peerOf selects the other end in the words of a policy's kind: by the label that names its service, and
// its namespace where it is not the policy's own; what is no workload by its address.
func (a *asker) peerOf(p *policy.Policy) policy.Peer {
	o := a.other()
	if w := o.Workload; w != nil && !w.HostNetwork {
		peer := policy.Peer{PodSelector: &metav1.LabelSelector{MatchLabels: naming(w)}}
		if w.Namespace != p.Namespace {
			peer.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": w.Namespace}}
		}
		return peer
	}
	return policy.Peer{IPBlock: &networkingv1.IPBlock{CIDR: identity.Single(o.Addr).String()}}
}

// naming is the label that names a workload's service, else all of its labels.
func naming(w *identity.Workload) map[string]string {
	for _, key := range identity.DefaultLabelOrder {
		if v := w.Labels[key]; v != "" {
			return map[string]string{key: v}
		}
	}
	return maps.Clone(w.Labels)
}

func portYAML(p policy.Port) map[string]any {
	return map[string]any{"protocol": p.Protocol.String(), "port": p.Port.IntVal}
}

func peerYAML(p policy.Peer) map[string]any {
	out := map[string]any{}
	if p.PodSelector != nil {
		out["podSelector"] = p.PodSelector
	}
	if p.NamespaceSelector != nil {
		out["namespaceSelector"] = p.NamespaceSelector
	}
	if p.IPBlock != nil {
		out["ipBlock"] = map[string]any{"cidr": p.IPBlock.CIDR}
	}
	return out
}

func snippet(v any) string {
	b, err := yaml.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}

func sorted(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

func selects(s *metav1.LabelSelector, l identity.Labels) bool {
	x, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && x.Matches(labels.Set(l))
}
