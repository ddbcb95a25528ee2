package lint

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// types checks what policyTypes makes of the rules that are there.
func (l *linter) types(p *policy.Policy) {
	if clusterWide(p) {
		return
	}
	if len(p.Spec.PolicyTypes) > 0 {
		for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
			name := typeOf(d)
			if len(p.Rules(d)) > 0 && !slices.Contains(p.Spec.PolicyTypes, name) {
				l.add(p, "spec."+d.String(), checkUnused, "the %s rules do nothing: policyTypes does not name %s", d, name).
					fix("add %s to policyTypes, or remove the rules", name)
			}
		}
		return
	}
	allows := slices.ContainsFunc(p.Spec.Egress, func(r policy.Rule) bool { return r.Action != policy.ActionDeny })
	switch {
	case allows && len(p.Spec.Ingress) == 0:
		l.add(p, "spec", checkImplicit, "without policyTypes the policy isolates ingress as well, and without ingress rules denies all of it").
			fix("add policyTypes: [Egress], or [Ingress, Egress] if that is meant")
	case len(p.Spec.Egress) == 0 && writesEgress(p):
		l.add(p, "spec.egress", checkEmptyEgress, "an empty egress list without policyTypes does not isolate egress: everything may go out").
			fix("add policyTypes: [Ingress, Egress] to deny it, or remove egress")
	}
}

func typeOf(d policy.Direction) networkingv1.PolicyType {
	if d == policy.Ingress {
		return networkingv1.PolicyTypeIngress
	}
	return networkingv1.PolicyTypeEgress
}

// writesEgress says whether the document has an egress field, which is then empty. The one form
// does not tell an empty list from none, since they mean the same.
func writesEgress(p *policy.Policy) bool {
	if !strings.Contains(p.Text, "egress") {
		return false
	}
	var doc struct {
		Spec map[string]yaml.Node `yaml:"spec"`
	}
	if err := yaml.Unmarshal([]byte(p.Text), &doc); err != nil {
		return false
	}
	n, has := doc.Spec["egress"]
	return has && n.Kind == yaml.SequenceNode
}

// allPorts says that no port is left out of what the rule allows, of TCP at least.
func (r *rule) allPorts() bool {
	return ports{protocol: identity.TCP, low: 1, high: 65535}.within(r.ports)
}

// width tells of rules that allow more than anybody needs.
func (l *linter) width(r *rule) {
	if r.Action != policy.ActionAllow {
		return
	}
	way, from := "from", "from"
	if r.dir == policy.Egress {
		way, from = "to", "to"
	}
	if len(r.Peers) == 0 {
		if r.allPorts() {
			l.add(r.of, r.path(), checkWide, "the rule allows everything %s everybody, inside and outside of the cluster", way).
				fix("say %s whom and on which ports", from)
		} else if !r.onlyDNS() {
			l.add(r.of, r.path(), checkEverybody, "the rule opens %s %s everybody, inside and outside of the cluster", r.portsName(), way).
				fix("say %s whom, if not everybody is meant", from)
		}
		return
	}
	if !r.allPorts() {
		return
	}
	for i, p := range r.peers {
		switch {
		case p.isWorld():
			l.add(r.of, r.peerPath(i), checkWide, "%s on every port", r.Peers[i]).fix("name the ports, or the blocks that are meant")
		case p.kind == byPods && p.pods.spaces.free() && p.pods.own.free():
			l.add(r.of, r.peerPath(i), checkWholeCluster, "every workload of every namespace on every port").
				fix("name the namespaces, or the ports, if not all are meant")
		}
	}
}

// isWorld says that the peer is every address of a family, exceptions apart, or the world.
func (p peer) isWorld() bool {
	switch p.kind {
	case byNetwork:
		return p.name == policy.NetworkWorld
	case byBlock: // nearly all of a family
		sum := 0.0
		for _, x := range p.pieces {
			sum += 1 / float64(uint64(1)<<min(x.Bits(), 62))
		}
		return sum >= 0.5
	}
	return false
}

func (r *rule) portsName() string {
	names := make([]string, len(r.Ports))
	for i, p := range r.Ports {
		names[i] = p.String()
	}
	return some(names)
}

// eitherOr tells of a namespaceSelector and a podSelector that are two list items where one is usual.
func (l *linter) eitherOr(r *rule) {
	for i := 1; i < len(r.Peers); i++ {
		a, b := r.Peers[i-1], r.Peers[i]
		if a.NamespaceSelector != nil && a.PodSelector == nil && b.PodSelector != nil && b.NamespaceSelector == nil {
			l.add(r.of, r.peerPath(i), checkOr, "two list items: all workloads of %s, and besides them %s of the policy's own namespace", a, b).
				fix(`if "these pods of these namespaces" is meant, remove the "- " before podSelector`)
		}
	}
}
