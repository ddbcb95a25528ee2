package translate

import (
	"fmt"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// native: everything that a NetworkPolicy says, the native kind says with the same words.
func (c *conversion) native() {
	p := c.renamed(policy.KindPolicy, c.of.Namespace)
	p.Annotations = withoutMode(p.Annotations)
	c.out = append(c.out, c.withComments(p))
}

// withoutMode leaves out the annotations that spec.mode and spec.onDeny take the place of.
func withoutMode(in map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range in {
		if k != policy.ModeAnnotation && k != policy.OnDenyAnnotation {
			out[k] = v
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

const nameLabel = "kubernetes.io/metadata.name"

// namespaces writes a cluster-wide policy as policies of the namespaces that it names. What has an
// equivalent there is a denial: it isolates nothing. Accepting rules would isolate, and passing
// ones have no meaning where there is no next tier.
func (c *conversion) namespaces(kind string) {
	p := c.of
	names := namesOf(p)
	if names == nil {
		c.lose("spec.subject", fmt.Sprintf("a %s is of one namespace; this subject selects namespaces by their labels", kind),
			"nothing was written; select them by name ("+nameLabel+": a, b), or write one for each")
		return
	}
	if kind == policy.KindNetworkPolicy {
		c.lose("spec", "a NetworkPolicy has no tier and denies nothing by a rule; its rules isolate what it selects",
			"nothing was written; an isolating NetworkPolicy in each namespace comes nearest")
		return
	}
	if p.Spec.Tier == policy.BaselineTier {
		c.lose("spec.tier", "policies of namespaces are asked before the Baseline tier, not after it", "written with priority 1000, after all others of the namespace")
	} else {
		c.lose("spec.tier", "policies of namespaces are asked after the Admin tier, and may be overruled by it", "written with its own priority, before most others of the namespace")
	}
	out := c.renamed(kind, "")
	out.Spec.NamespaceSelector = nil
	if p.Spec.Tier == policy.BaselineTier {
		out.Spec.Priority = 1000
	}
	out.Spec.Tier = policy.NamespaceTier
	out.Spec.Ingress, out.Spec.Egress = c.denials(policy.Ingress), c.denials(policy.Egress)
	if len(out.Spec.Ingress)+len(out.Spec.Egress) == 0 {
		return
	}
	for _, name := range names {
		own := c.withComments(out)
		own.Namespace = name
		c.out = append(c.out, own)
	}
}

// namesOf lists the namespaces of a subject that gives them by name; nil: by other labels.
func namesOf(p *policy.Policy) []string {
	s := p.Spec.NamespaceSelector
	if s == nil {
		return nil
	}
	switch {
	case len(s.MatchLabels) == 1 && len(s.MatchExpressions) == 0 && s.MatchLabels[nameLabel] != "":
		return []string{s.MatchLabels[nameLabel]}
	case len(s.MatchLabels) == 0 && len(s.MatchExpressions) == 1 && s.MatchExpressions[0].Key == nameLabel && s.MatchExpressions[0].Operator == "In":
		return slices.Clone(s.MatchExpressions[0].Values)
	}
	return nil
}

// denials are the denying rules of a cluster-wide policy as native ones. Those that stand behind a
// rule that accepts or passes on may deny more than they did; that is told.
func (c *conversion) denials(d policy.Direction) []policy.Rule {
	var out []policy.Rule
	for i, r := range c.of.Rules(d) {
		path := fmt.Sprintf("spec.%s[%d]", d, i)
		if r.Action != policy.ActionDeny {
			c.lose(path+".action", fmt.Sprintf("a native rule that allows isolates the workload, this one (%s) does not", r.Action),
				"the rule is left out; denials after it hold for what it let through")
			continue
		}
		rule := r
		rule.Comment = c.comments.rules[path]
		rule.Peers = nil
		for j, x := range r.Peers {
			if x.NodeSelector != nil {
				c.lose(peerPath(path, d, j)+".nodes", "the native kind selects no nodes by labels", "the peer is left out; an ipBlock of their addresses says it")
				continue
			}
			rule.Peers = append(rule.Peers, x)
		}
		if len(rule.Peers) > 0 || len(r.Peers) == 0 {
			out = append(out, rule)
		}
	}
	return out
}
