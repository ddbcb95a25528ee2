package policy

import (
	"fmt"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// clusterRule finds what a rule of a cluster-wide kind says that the API has no words for.
func (c *checker) clusterRule(path string, r Rule) {
	if len(r.Peers) == 0 {
		c.add(path, "no peers: a rule of a %s names at least one", c.kind)
	}
	for i, x := range r.Peers {
		if x.PodSelector != nil && x.NamespaceSelector == nil || x.IPBlock != nil && len(x.IPBlock.Except) > 0 {
			c.add(fmt.Sprintf("%s peer %d", path, i), "a podSelector without namespaceSelector, or a block with exceptions: not of a %s", c.kind)
		}
	}
	groups, lone := groupNames(r.Ports)
	if lone >= 0 {
		c.add(fmt.Sprintf("%s.ports[%d]", path, lone), "the name of a port of one protocol: a %s's is of each", c.kind)
	}
	if n := len(groups); n > maxClusterItems {
		c.add(path, "%d ports; want at most %d", n, maxClusterItems)
	}
	if n := len(groupPeers(r.Peers)); n > maxClusterItems {
		c.add(path, "%d peers; want at most %d", n, maxClusterItems)
	}
}

func clusterNode(p *Policy) mappingNode {
	spec := mapping()
	for name, tier := range clusterTiers {
		if tier == p.Spec.Tier {
			spec.put("tier", str(name))
		}
	}
	spec.put("priority", integer(p.Spec.Priority))
	subject := mapping()
	if spaces := p.Spec.NamespaceSelector; len(p.Spec.PodSelector.MatchLabels)+len(p.Spec.PodSelector.MatchExpressions) > 0 {
		pods := mapping()
		if spaces == nil {
			pods.put("namespaceSelector", emptyNode())
		} else {
			pods.put("namespaceSelector", selectorNode(spaces))
		}
		pods.put("podSelector", selectorNode(&p.Spec.PodSelector))
		subject.put("pods", pods.Node)
	} else if spaces == nil {
		subject.put("namespaces", emptyNode())
	} else {
		subject.put("namespaces", selectorNode(spaces))
	}
	spec.put("subject", subject.Node)
	spec.putClusterRules("ingress", "from", p.Spec.Ingress)
	spec.putClusterRules("egress", "to", p.Spec.Egress)
	return spec
}

func emptyNode() *yaml.Node {
	n := mapping()
	n.Style = yaml.FlowStyle
	return n.Node
}

func (m mappingNode) putClusterRules(key, peers string, rules []Rule) {
	if len(rules) == 0 {
		return
	}
	out := sequence()
	for _, r := range rules {
		n := mapping()
		n.putWord("name", r.Name)
		for _, a := range clusterActions {
			if a.action == r.Action {
				n.put("action", str(a.name))
			}
		}
		list := sequence()
		for _, group := range groupPeers(r.Peers) {
			list.Content = append(list.Content, clusterPeerNode(group))
		}
		n.put(peers, list)
		if groups, _ := groupNames(r.Ports); len(groups) > 0 {
			list := sequence()
			for _, x := range groups {
				list.Content = append(list.Content, clusterProtocolNode(x))
			}
			n.put("protocols", list)
		}
		n.HeadComment = commentOf(r.Comment)
		out.Content = append(out.Content, n.Node)
	}
	m.put(key, out)
}

// groupPeers puts neighbours that share a list in the document together: blocks, and DNS names.
func groupPeers(in []Peer) [][]Peer {
	var out [][]Peer
	for _, x := range in {
		if n := len(out); n > 0 && len(out[n-1]) < maxClusterItems {
			last := out[n-1][0]
			if last.IPBlock != nil && x.IPBlock != nil || last.DNSName != "" && x.DNSName != "" {
				out[n-1] = append(out[n-1], x)
				continue
			}
		}
		out = append(out, []Peer{x})
	}
	return out
}

func clusterPeerNode(group []Peer) *yaml.Node {
	n, x := mapping(), group[0]
	list := func(text func(Peer) string) *yaml.Node {
		out := sequence()
		for _, y := range group {
			out.Content = append(out.Content, str(text(y)))
		}
		return out
	}
	switch {
	case x.IPBlock != nil:
		n.put("networks", list(func(y Peer) string {
			cidr, _ := parseCIDR(y.IPBlock.CIDR) // check has read it; API servers refuse host bits
			return cidr.String()
		}))
	case x.DNSName != "":
		n.put("domainNames", list(func(y Peer) string { return y.DNSName }))
	case x.NodeSelector != nil:
		n.put("nodes", selectorNode(x.NodeSelector))
	case x.PodSelector == nil:
		n.put("namespaces", selectorNode(x.NamespaceSelector))
	default:
		pods := mapping()
		pods.put("namespaceSelector", selectorNode(x.NamespaceSelector))
		pods.put("podSelector", selectorNode(x.PodSelector))
		n.put("pods", pods.Node)
	}
	return n.Node
}

// groupNames folds a port's name under each protocol, as it is read, to one item again: a Port with the
// name and no protocol. lone is a name that is not under each, -1 if there is none.
func groupNames(in []Port) (out []Port, lone int) {
	lone = -1
	for i := 0; i < len(in); i++ {
		x := in[i]
		if x.Port == nil || x.Port.Type != intstr.String {
			out = append(out, x)
			continue
		}
		n := len(kubernetesProtocols)
		whole := i+n <= len(in)
		for j := 0; whole && j < n; j++ {
			y := in[i+j]
			whole = y.Port != nil && y.Port.Type == intstr.String && y.Port.StrVal == x.Port.StrVal && y.Protocol == kubernetesProtocols[j]
		}
		if !whole && lone < 0 {
			lone = i
		}
		if whole {
			i += n - 1
		}
		out = append(out, Port{Port: x.Port})
	}
	return out, lone
}

func clusterProtocolNode(x Port) *yaml.Node {
	n := mapping()
	if x.Port != nil && x.Port.Type == intstr.String {
		n.put("destinationNamedPort", str(x.Port.StrVal))
		return n.Node
	}
	port := mapping()
	switch {
	case x.Port == nil:
		port.put("range", rangeNode(1, 65535))
	case x.EndPort != nil && *x.EndPort != x.Port.IntVal:
		port.put("range", rangeNode(x.Port.IntVal, *x.EndPort))
	default:
		port.put("number", integer(x.Port.IntVal))
	}
	inner := mapping()
	inner.put("destinationPort", port.Node)
	protocol := x.Protocol
	if protocol == identity.AnyProtocol {
		protocol = identity.TCP
	}
	n.put(clusterProtocolField[protocol], inner.Node)
	return n.Node
}

func rangeNode(start, end int32) *yaml.Node {
	n := mapping()
	n.put("start", integer(start))
	n.put("end", integer(end))
	n.Style = yaml.FlowStyle
	return n.Node
}
