package policy

import (
	"fmt"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// why says in a sentence why nothing allowed it, and names the rule that came nearest: one that
// admits the peer on other ports, else one that opens the port to other peers.
func (s side) why(q *ask) (reason, nearest string) {
	end := fmt.Sprintf("%s/%s", q.subject.Namespace, q.subject.Name)
	var peerFits, portFits *rule
	rules := 0
	for _, r := range s.spaces {
		if r.action != ActionAllow {
			continue
		}
		rules++
		if peerFits == nil && r.matchPeers(q) != no {
			peerFits = r
		}
		if portFits == nil && len(r.ports) > 0 && r.matchPorts(q) {
			portFits = r
		}
	}
	isolated := fmt.Sprintf("%s of %s is isolated by %s", q.dir, end, some(s.Policies))
	to := "from"
	if q.dir == Egress {
		to = "to"
	}
	switch {
	case peerFits != nil:
		return fmt.Sprintf("%s and no rule allows %s %s on %s; nearest: %s admits that peer on %s only",
			isolated, to, otherName(q), portName(q), peerFits.name, peerFits.what), peerFits.name
	case portFits != nil:
		return fmt.Sprintf("%s and no rule allows %s %s on %s; nearest: %s opens that port %s %s only",
			isolated, to, otherName(q), portName(q), portFits.name, to, portFits.who), portFits.name
	case rules == 0:
		return fmt.Sprintf("%s, which has no %s rule: nothing is allowed", isolated, q.dir), ""
	}
	return fmt.Sprintf("%s and none of %d %s rules allows %s %s on %s", isolated, rules, q.dir, to, otherName(q), portName(q)), ""
}

// maxNamed is how many of a list a sentence names.
const maxNamed = 4

// some joins names, the first few of them.
func some(names []string) string {
	if len(names) > maxNamed {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
	}
	return strings.Join(names, ", ")
}

func otherName(q *ask) string {
	p := q.other
	switch {
	case p.Workload != nil:
		return p.Workload.Namespace + "/" + p.Workload.Name
	case p.Kind == identity.World:
		return "world (" + p.Addr.String() + ")"
	case p.Addr.IsValid():
		return p.String() + " (" + p.Addr.String() + ")"
	}
	return p.String()
}

func portName(q *ask) string {
	if q.protocol.IsICMP() {
		return fmt.Sprintf("%s type %d", q.protocol, q.port)
	}
	if !q.protocol.HasPorts() {
		return "protocol " + q.protocol.String()
	}
	return fmt.Sprintf("%s/%d", q.protocol, q.port)
}

// describeAll names a rule's peers or ports for people.
func describeAll[T fmt.Stringer](list []T) string {
	out := make([]string, 0, min(len(list), maxNamed+1))
	for i, x := range list {
		if i == maxNamed {
			return fmt.Sprintf("%s and %d more", strings.Join(out, ", "), len(list)-maxNamed)
		}
		out = append(out, x.String())
	}
	return strings.Join(out, ", ")
}

// String gives "TCP/80", "TCP/8000-8999", "UDP/dns", "SCTP (every port)".
func (p Port) String() string {
	protocol := p.Protocol
	if protocol == identity.AnyProtocol {
		protocol = identity.TCP
	}
	switch {
	case p.Port == nil:
		return protocol.String() + " (every port)"
	case protocol.IsICMP():
		return protocol.String() + " type " + p.Port.String()
	case p.EndPort != nil:
		return fmt.Sprintf("%s/%d-%d", protocol, p.Port.IntVal, *p.EndPort)
	}
	return protocol.String() + "/" + p.Port.String()
}

// String names the peer for people: "pods app=cart", "namespaces team=web", "10.0.0.0/8", "world".
func (p Peer) String() string {
	switch {
	case p.Network != "":
		return p.Network
	case p.IPBlock != nil:
		return blockName(p.IPBlock)
	case p.DNSName != "":
		return "name " + p.DNSName
	case p.Service != nil:
		return "service " + strings.TrimPrefix(p.Service.Namespace+"/"+p.Service.Name, "/")
	case p.NodeSelector != nil:
		return "nodes " + selectorName(p.NodeSelector)
	}
	var parts []string
	if p.PodSelector != nil {
		parts = append(parts, "pods "+selectorName(p.PodSelector))
	}
	if p.NamespaceSelector != nil {
		parts = append(parts, "namespaces "+selectorName(p.NamespaceSelector))
	}
	return strings.Join(parts, " of ")
}

func blockName(b *networkingv1.IPBlock) string {
	if len(b.Except) == 0 {
		return b.CIDR
	}
	return b.CIDR + " except " + some(b.Except)
}

func selectorName(s *metav1.LabelSelector) string {
	if len(s.MatchLabels) == 0 && len(s.MatchExpressions) == 0 {
		return "(all)"
	}
	return metav1.FormatLabelSelector(s)
}
