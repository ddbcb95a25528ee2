package lint

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// rule is one rule of a set with everything that decides what it matches and when it is asked.
type rule struct {
	policy.Rule
	of      *policy.Policy
	dir     policy.Direction
	at      int // its index in the policy
	index   int // its index in the set
	subject pods
	peers   []peer // one that is everybody where the rule has none
	ports   []ports
}

// path is the rule's place in its document.
func (r *rule) path() string { return fmt.Sprintf("spec.%s[%d]", r.dir, r.at) }

// String names the rule for people: "shop/cart ingress[0]", with its name where it has one.
func (r *rule) String() string {
	where := r.of.Name
	if r.of.Namespace != "" {
		where = r.of.Namespace + "/" + r.of.Name
	}
	if r.Name != "" {
		return fmt.Sprintf("%s %s[%d] %q", where, r.dir, r.at, r.Name)
	}
	return fmt.Sprintf("%s %s[%d]", where, r.dir, r.at)
}

// expired says whether the rule means nothing any more.
func (r *rule) expired(now time.Time) bool { return !r.Expires.IsZero() && !r.Expires.After(now) }

// outlives says whether r means something at least as long as a does.
func (r *rule) outlives(a *rule) bool {
	return r.Expires.IsZero() || !a.Expires.IsZero() && !r.Expires.Before(a.Expires)
}

type peerKind uint8

const (
	everybody peerKind = iota
	byPods
	byBlock
	byNetwork
	byService
	byName
	byNodes
)

// peer is one end of a rule. Which of its fields count is said by kind.
type peer struct {
	kind   peerKind
	pods   pods
	pieces []netip.Prefix // the block without its exceptions, sorted and disjoint
	name   string         // of the network, the Service, the DNS name
	nodes  labels
}

// ports is a protocol with a range of ports or a port's name.
type ports struct {
	every     bool // every protocol and port
	protocol  identity.Protocol
	name      string
	low, high int32
}

func subjectOf(p *policy.Policy) pods {
	own := readLabels(&p.Spec.PodSelector)
	if p.Namespace != "" {
		return inNamespace(p.Namespace, own)
	}
	return pods{readLabels(p.Spec.NamespaceSelector), own}
}

func readPeer(p *policy.Policy, x policy.Peer) peer {
	switch {
	case x.IPBlock != nil:
		return peer{kind: byBlock, pieces: pieces(x)}
	case x.Network != "":
		return peer{kind: byNetwork, name: x.Network}
	case x.Service != nil:
		space := x.Service.Namespace
		if space == "" {
			space = p.Namespace
		}
		return peer{kind: byService, name: space + "/" + x.Service.Name}
	case x.DNSName != "":
		return peer{kind: byName, name: strings.ToLower(strings.TrimSuffix(x.DNSName, "."))}
	case x.NodeSelector != nil:
		return peer{kind: byNodes, nodes: readLabels(x.NodeSelector)}
	}
	own := readLabels(x.PodSelector)
	if x.NamespaceSelector == nil && p.Namespace != "" {
		return peer{kind: byPods, pods: inNamespace(p.Namespace, own)}
	}
	return peer{kind: byPods, pods: pods{readLabels(x.NamespaceSelector), own}}
}

// pieces of a block without its exceptions; none where nothing is left, or it does not parse.
func pieces(x policy.Peer) []netip.Prefix {
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
	return identity.Subtract(block.Masked(), identity.Union(except))
}

func readPort(x policy.Port) ports {
	out := ports{protocol: protocolOf(x), high: 65535}
	switch {
	case x.Port == nil:
	case x.Port.Type == intstr.String:
		out.name = x.Port.StrVal
	default:
		out.low, out.high = x.Port.IntVal, x.Port.IntVal
		if x.EndPort != nil {
			out.high = *x.EndPort
		}
	}
	return out
}

func protocolOf(x policy.Port) identity.Protocol {
	if x.Protocol == identity.AnyProtocol {
		return identity.TCP
	}
	return x.Protocol
}

func readRule(p *policy.Policy, d policy.Direction, i int) *rule {
	r := &rule{Rule: p.Rules(d)[i], of: p, dir: d, at: i, subject: subjectOf(p)}
	for _, x := range r.Peers {
		r.peers = append(r.peers, readPeer(p, x))
	}
	if len(r.peers) == 0 {
		r.peers = []peer{{kind: everybody}}
	}
	for _, x := range r.Ports {
		r.ports = append(r.ports, readPort(x))
	}
	if len(r.ports) == 0 {
		r.ports = []ports{{every: true}}
	}
	return r
}

// within says whether everybody who is p is q for certain.
func (p peer) within(q peer) bool {
	switch {
	case q.kind == everybody:
		return true
	case p.kind == byPods && q.kind == byNetwork && q.name == policy.NetworkCluster:
		return true
	case p.kind != q.kind:
		return false
	}
	switch p.kind {
	case byPods:
		return p.pods.within(q.pods)
	case byBlock:
		return !slices.ContainsFunc(p.pieces, func(x netip.Prefix) bool { return !covered(x, q.pieces) })
	case byName:
		return p.name == q.name || wildcard(q.name, p.name)
	case byNodes:
		return p.nodes.within(q.nodes)
	}
	return p.name == q.name
}

// covered says whether disjoint blocks hold all of x, one of them or several together.
func covered(x netip.Prefix, blocks []netip.Prefix) bool {
	for _, b := range blocks {
		if b.Bits() <= x.Bits() && b.Contains(x.Addr()) {
			return true
		}
	}
	return len(identity.Subtract(x, blocks)) == 0
}

// wildcard says whether "*.example.com" holds a name, or a narrower wildcard.
func wildcard(pattern, name string) bool {
	suffix, ok := strings.CutPrefix(pattern, "*")
	return ok && strings.HasSuffix(name, suffix) && len(name) > len(suffix)
}

// disjoint says that nobody can be both, for certain.
func (p peer) disjoint(q peer) bool {
	if p.kind != q.kind {
		return false
	}
	switch p.kind {
	case byPods:
		return p.pods.disjoint(q.pods)
	case byBlock:
		return !slices.ContainsFunc(p.pieces, func(x netip.Prefix) bool { return slices.ContainsFunc(q.pieces, x.Overlaps) })
	case byNodes:
		return p.nodes.disjoint(q.nodes)
	}
	return false
}

// within says whether list admits everything that p admits.
func (p ports) within(list []ports) bool {
	reach := p.low // everything below is admitted already
	for again := true; again; {
		again = false
		for _, q := range list {
			switch {
			case q.every, !p.every && q == p:
				return true
			case p.every || q.protocol != p.protocol || q.name != "":
			case p.name != "":
				if q.low <= 1 && q.high == 65535 {
					return true // every port, whatever its name
				}
			case q.low <= reach && q.high >= reach:
				if q.high >= p.high {
					return true
				}
				reach, again = q.high+1, true
			}
		}
	}
	return false
}

func (p ports) disjoint(q ports) bool {
	switch {
	case p.every || q.every:
		return false
	case p.protocol != q.protocol:
		return true
	case p.name != "" || q.name != "":
		return false
	}
	return p.high < q.low || q.high < p.low
}

// disjoint says that no connection can match both rules, for certain.
func (r *rule) disjoint(q *rule) bool {
	if r.dir != q.dir || r.subject.disjoint(q.subject) {
		return true
	}
	apart := !slices.ContainsFunc(r.peers, func(p peer) bool {
		return slices.ContainsFunc(q.peers, func(x peer) bool { return !p.disjoint(x) })
	})
	return apart || !slices.ContainsFunc(r.ports, func(p ports) bool {
		return slices.ContainsFunc(q.ports, func(x ports) bool { return !p.disjoint(x) })
	})
}

// coveredBy says whether q matches every connection that r matches, for certain.
func (r *rule) coveredBy(q *rule) bool {
	if r.dir != q.dir || !q.outlives(r) || !r.subject.within(q.subject) {
		return false
	}
	for _, p := range r.peers {
		if !slices.ContainsFunc(q.peers, p.within) {
			return false
		}
	}
	return !slices.ContainsFunc(r.ports, func(p ports) bool { return !p.within(q.ports) })
}
