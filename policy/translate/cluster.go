package translate

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Bounds of ClusterNetworkPolicy (v1alpha2): rules of a direction, and peers and protocols of a rule.
const maxItems = 25

// cluster writes a policy of a namespace as a ClusterNetworkPolicy. One that only denies becomes a
// policy of the Admin tier; one that isolates becomes a policy of the Baseline tier that accepts
// what it allows and denies the rest. Both change when it is asked, which is told.
func (c *conversion) cluster() {
	p := c.of
	out := c.renamed(policy.KindClusterNetworkPolicy, "")
	out.Name = p.Namespace + "." + p.Name
	out.Annotations = withoutMode(p.Annotations)
	if p.Shadow {
		c.lose("spec.mode", "only Bulkhead reads annotation "+policy.ModeAnnotation+"; every other engine would enforce the policy", "written as that annotation")
	}
	if p.Spec.OnDeny != policy.OnDenyDefault {
		c.lose("spec.onDeny", "only Bulkhead reads annotation "+policy.OnDenyAnnotation+"; other engines drop what is denied", "written as that annotation")
	}
	if p.Spec.Severity != "" {
		c.lose("spec.severity", "a ClusterNetworkPolicy says nothing of alerts", "left out")
	}
	if p.Spec.Reason != "" {
		out.Comment = append(out.Comment, p.Spec.Reason)
	}
	out.Spec = policy.Spec{
		PodSelector: p.Spec.PodSelector, NamespaceSelector: byName(p.Namespace), Tier: policy.BaselineTier, Priority: cmp.Or(p.Spec.Priority, networkPolicyPriority),
		OnDeny: p.Spec.OnDeny,
	}
	isolating := len(explicit(p)) > 0
	if isolating {
		c.lose("spec", "policies of a namespace add up and are asked before the Baseline tier; this is asked only where none of them isolates", "written in the Baseline tier, with a denial of the rest at its end")
	} else {
		out.Spec.Tier = policy.AdminTier
		c.lose("spec", "a denial of the Admin tier overrules every policy of the namespace", fmt.Sprintf("written in the Admin tier with priority %d", out.Spec.Priority))
	}
	out.Spec.Ingress, out.Spec.Egress = c.ordered(policy.Ingress), c.ordered(policy.Egress)
	for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
		if n := len(out.Rules(d)); n > maxItems {
			c.lose("spec."+d.String(), fmt.Sprintf("%d rules, and a ClusterNetworkPolicy has at most %d", n, maxItems), "nothing was written; split the policy")
			return
		}
	}
	if len(out.Spec.Ingress)+len(out.Spec.Egress) > 0 {
		c.out = append(c.out, c.withComments(out))
	}
}

func byName(namespace string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{nameLabel: namespace}}
}

// ordered lists a direction's rules as they are asked: denials first, then what is allowed, then,
// where the direction is isolated, a denial of the rest.
func (c *conversion) ordered(d policy.Direction) []policy.Rule {
	var denied, allowed []policy.Rule
	for i, r := range c.of.Rules(d) {
		path := fmt.Sprintf("spec.%s[%d]", d, i)
		if !r.Expires.IsZero() && r.Action == policy.ActionAllow {
			c.lose(path+".expires", "a ClusterNetworkPolicy's rule does not end by itself", "the rule is left out; add it without expires and remove it on "+r.Expires.UTC().Format("2006-01-02"))
			continue
		} else if !r.Expires.IsZero() {
			c.lose(path+".expires", "a ClusterNetworkPolicy's rule does not end by itself", "the denial is written without its end")
		}
		if r.Severity != "" {
			c.lose(path+".severity", "a ClusterNetworkPolicy says nothing of alerts", "left out")
		}
		rule, ok := c.clusterRule(path, d, r)
		switch {
		case !ok:
		case r.Action == policy.ActionDeny:
			denied = append(denied, split(rule)...)
		default:
			allowed = append(allowed, split(rule)...)
		}
	}
	out := slices.Concat(denied, allowed)
	if c.of.Isolates(d) {
		out = append(out, c.rest(d))
	}
	return out
}

// rest denies what no rule before it decided.
func (c *conversion) rest(d policy.Direction) policy.Rule {
	rule := policy.Rule{Name: "deny-the-rest", Action: policy.ActionDeny, Peers: everyPod()}
	if d == policy.Ingress {
		c.lose("spec.ingress", "a ClusterNetworkPolicy denies ingress from pods only, not from outside of the cluster", "the denial at the end is from every namespace")
		return rule
	}
	rule.Peers = append(rule.Peers, blocks("0.0.0.0/0", "::/0")...)
	return rule
}

func everyPod() []policy.Peer {
	return []policy.Peer{{NamespaceSelector: &metav1.LabelSelector{}}}
}

func (c *conversion) clusterRule(path string, d policy.Direction, r policy.Rule) (policy.Rule, bool) {
	out := policy.Rule{Name: r.Name, Action: r.Action, Comment: slices.Clone(c.comments.rules[path])}
	if r.Reason != "" {
		out.Comment = append(out.Comment, r.Reason)
	}
	var ok, fits bool
	out.Peers, ok = c.peers(path, d, r.Peers, c.clusterPeer)
	out.Ports, fits = c.ports(path, r.Ports)
	if len(r.Peers) == 0 {
		out.Peers = everyPod()
		if d == policy.Ingress {
			c.lose(path, "a ClusterNetworkPolicy's ingress knows pods only; everybody is more", "written as every pod of every namespace")
		} else {
			out.Peers = append(out.Peers, blocks("0.0.0.0/0", "::/0")...)
		}
	}
	out.Ports = c.everyProtocol(path, out.Ports)
	return out, ok && fits
}

// everyProtocol writes a port's name under each protocol, since a ClusterNetworkPolicy's name is of
// none.
func (c *conversion) everyProtocol(path string, in []policy.Port) []policy.Port {
	var out []policy.Port
	for i, x := range in {
		if !named(x) {
			out = append(out, x)
			continue
		}
		c.lose(fmt.Sprintf("%s.ports[%d]", path, i), "a ClusterNetworkPolicy's named port is of any protocol", "written without the protocol")
		for _, protocol := range []identity.Protocol{identity.TCP, identity.UDP, identity.SCTP} {
			out = append(out, policy.PortName(protocol, x.Port.StrVal))
		}
	}
	return out
}

// split parts a rule with more peers or ports than the API takes into several that say the same.
func split(r policy.Rule) []policy.Rule {
	// Twice the bound of blocks fit in one item each, but not every item is a block.
	var out []policy.Rule
	ports := slices.Collect(slices.Chunk(r.Ports, maxItems/3*3))
	if len(ports) == 0 {
		ports = [][]policy.Port{nil}
	}
	for peers := range slices.Chunk(r.Peers, maxItems) {
		for _, p := range ports {
			part := r
			part.Peers, part.Ports = peers, p
			if len(out) > 0 {
				part.Comment = nil
			}
			out = append(out, part)
		}
	}
	return out
}

// clusterPeer is a peer of a namespace's policy in the words of a cluster-wide one.
func (c *conversion) clusterPeer(path string, d policy.Direction, x policy.Peer) []policy.Peer {
	switch {
	case x.DNSName != "", x.NodeSelector != nil:
		return []policy.Peer{x}
	case x.Service != nil:
		c.lose(path+".service", "a ClusterNetworkPolicy selects by labels, not by Service", "the peer is left out; pods with the Service's own selector say the same")
	case x.Network == policy.NetworkCluster:
		return everyPod()
	case x.Network == policy.NetworkMetadata && d == policy.Egress:
		return blocks("169.254.169.254/32", "fd00:ec2::254/128")
	case x.Network != "":
		c.lose(path+".network", fmt.Sprintf("a ClusterNetworkPolicy knows no network %q", x.Network), "the peer is left out")
	case x.IPBlock != nil && d == policy.Ingress:
		c.lose(path+".ipBlock", "a ClusterNetworkPolicy's ingress knows pods only, no addresses", "the peer is left out")
	case x.IPBlock != nil:
		return piecesOf(x)
	case x.NamespaceSelector == nil:
		return []policy.Peer{{NamespaceSelector: byName(c.of.Namespace), PodSelector: x.PodSelector}}
	default:
		return []policy.Peer{x}
	}
	return nil
}

// piecesOf writes a block with exceptions as the blocks that are left, which is the same.
func piecesOf(x policy.Peer) []policy.Peer {
	block, err := netip.ParsePrefix(x.IPBlock.CIDR)
	if err != nil {
		return nil
	}
	var except []netip.Prefix
	for _, text := range x.IPBlock.Except {
		if e, err := netip.ParsePrefix(text); err == nil {
			except = append(except, e.Masked())
		}
	}
	var out []policy.Peer
	for _, p := range identity.Subtract(block.Masked(), identity.Union(except)) {
		out = append(out, blocks(p.String())...)
	}
	return out
}
