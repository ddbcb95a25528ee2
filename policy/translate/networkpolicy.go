package translate

import (
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// networkPolicy writes a native policy as a NetworkPolicy. What cannot be said is left out, never so
// that a list becomes empty: an empty list of peers or ports would mean all of them.
func (c *conversion) networkPolicy() {
	p := c.of
	types := explicit(p)
	if len(types) == 0 {
		c.lose("spec", "a NetworkPolicy that denies without isolating does not exist", "nothing was written; leave what is denied out of the allowing policies")
		return
	}
	out := c.renamed(policy.KindNetworkPolicy, p.Namespace)
	out.Spec.PolicyTypes = types
	c.plain(&out)
	out.Spec.Ingress, out.Spec.Egress = c.allowing(policy.Ingress), c.allowing(policy.Egress)
	c.out = append(c.out, c.withComments(out))
}

// plain takes away what a NetworkPolicy has no field for, outside of its rules.
func (c *conversion) plain(out *policy.Policy) {
	s := &out.Spec
	if s.Priority != 0 && s.Priority != networkPolicyPriority {
		c.lose("spec.priority", "NetworkPolicies have no order", "left out; priority matters only beside denying rules")
	}
	if s.Severity != "" {
		c.lose("spec.severity", "a NetworkPolicy says nothing of alerts", "left out")
	}
	if s.Reason != "" {
		out.Comment = append(out.Comment, s.Reason)
	}
	if out.Shadow {
		c.lose("spec.mode", "only Bulkhead reads annotation "+policy.ModeAnnotation+"; every other engine would enforce the policy", "written as that annotation")
	}
	if s.OnDeny != policy.OnDenyDefault {
		c.lose("spec.onDeny", "only Bulkhead reads annotation "+policy.OnDenyAnnotation+"; other engines drop what is denied", "written as that annotation")
	}
	s.Priority, s.Severity, s.Reason = 0, "", ""
}

// networkPolicyPriority is every NetworkPolicy's, and the native kind's default.
const networkPolicyPriority = 1000

func (c *conversion) allowing(d policy.Direction) []policy.Rule {
	var out []policy.Rule
	for i, r := range c.of.Rules(d) {
		path := fmt.Sprintf("spec.%s[%d]", d, i)
		switch {
		case r.Action == policy.ActionDeny:
			c.lose(path+".action", "NetworkPolicies only allow", "the denial is left out: what other rules allow of it stays allowed")
			continue
		case !r.Expires.IsZero():
			c.lose(path+".expires", "a NetworkPolicy's rule does not end by itself", "the rule is left out; add it without expires and remove it on "+r.Expires.UTC().Format("2006-01-02"))
			continue
		}
		peers, ok := c.peers(path, d, r.Peers, c.plainPeer)
		ports, fits := c.ports(path, r.Ports)
		if !ok || !fits {
			continue
		}
		if r.Severity != "" {
			c.lose(path+".severity", "a NetworkPolicy says nothing of alerts", "left out")
		}
		comment := slices.Clone(c.comments.rules[path])
		if r.Name != "" {
			comment = append(comment, r.Name)
		}
		if r.Reason != "" {
			comment = append(comment, r.Reason)
		}
		out = append(out, policy.Rule{Peers: peers, Ports: ports, Comment: comment})
	}
	return out
}

// peers brings each peer to another kind. ok is false when peers were given and none is left.
func (c *conversion) peers(path string, d policy.Direction, in []policy.Peer, one func(string, policy.Direction, policy.Peer) []policy.Peer) (out []policy.Peer, ok bool) {
	for i, x := range in {
		out = append(out, one(peerPath(path, d, i), d, x)...)
	}
	return out, len(in) == 0 || len(out) > 0
}

// plainPeer is a native peer with NetworkPolicy's fields.
func (c *conversion) plainPeer(path string, d policy.Direction, x policy.Peer) []policy.Peer {
	switch {
	case x.DNSName != "":
		c.lose(path+".dnsName", "a NetworkPolicy knows no DNS names", "the peer is left out; an ipBlock of the addresses that "+x.DNSName+" has today comes nearest")
	case x.Service != nil:
		c.lose(path+".service", "a NetworkPolicy selects by labels, not by Service", "the peer is left out; a podSelector with the Service's own selector says the same")
	case x.Network != "":
		return c.plainNetwork(path+".network", d, x.Network)
	default:
		return []policy.Peer{x}
	}
	return nil
}

func (c *conversion) plainNetwork(path string, d policy.Direction, name string) []policy.Peer {
	switch name {
	case policy.NetworkMetadata:
		return blocks("169.254.169.254/32", "fd00:ec2::254/128")
	case policy.NetworkCluster:
		return []policy.Peer{{NamespaceSelector: &metav1.LabelSelector{}}}
	case policy.NetworkNode:
		if d == policy.Ingress {
			c.lose(path, "a NetworkPolicy does not name the node", "the peer is left out; the node may connect to its own pods anyhow")
		} else {
			c.lose(path, "a NetworkPolicy does not name the node", "the peer is left out; an ipBlock of the nodes' addresses comes nearest")
		}
	case policy.NetworkDNS:
		c.lose(path, "a NetworkPolicy does not name the workload's resolvers", "written as the pods with k8s-app=kube-dns of kube-system")
		return []policy.Peer{{
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{nameLabel: "kube-system"}},
			PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "kube-dns"}},
		}}
	case policy.NetworkWorld:
		c.lose(path, "a NetworkPolicy cannot say all that is outside of the cluster", "the peer is left out; ipBlock 0.0.0.0/0 with the cluster's own ranges as except comes nearest")
	default:
		c.lose(path, fmt.Sprintf("network %q is known to the daemon's configuration only", name), "the peer is left out; write ipBlocks of its ranges")
	}
	return nil
}

func blocks(cidrs ...string) []policy.Peer {
	var out []policy.Peer
	for _, x := range cidrs {
		out = append(out, policy.Peer{IPBlock: &networkingv1.IPBlock{CIDR: x}})
	}
	return out
}

// ports keeps what has ports. ok is false when ports were given and none is left.
func (c *conversion) ports(path string, in []policy.Port) (out []policy.Port, ok bool) {
	for i, x := range in {
		if x.Protocol.IsICMP() {
			c.lose(fmt.Sprintf("%s.ports[%d].protocol", path, i), fmt.Sprintf("%s is not a protocol that the other kind knows", x.Protocol),
				"the port is left out; errors that belong to a connection pass anyhow")
			continue
		}
		out = append(out, x)
	}
	return out, len(in) == 0 || len(out) > 0
}

func named(p policy.Port) bool { return p.Port != nil && p.Port.Type == intstr.String }
