package lint

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

var (
	dnsUDP = ports{protocol: identity.UDP, low: 53, high: 53}
	dnsTCP = ports{protocol: identity.TCP, low: 53, high: 53}
)

// onlyDNS says that the rule opens port 53 and nothing else.
func (r *rule) onlyDNS() bool {
	return !slices.ContainsFunc(r.ports, func(p ports) bool { return p != dnsUDP && p != dnsTCP })
}

// opensDNS says whether a rule may be meant to let its workloads ask for names by that protocol: it
// names the port, or all ports of peers among which a resolver may be.
func (l *linter) opensDNS(r *rule, port ports) bool {
	if r.dir != policy.Egress || r.Action != policy.ActionAllow || r.of.Spec.Tier == policy.BaselineTier {
		return false
	}
	if slices.ContainsFunc(r.ports, func(p ports) bool {
		return p.protocol == port.protocol && strings.Contains(p.name, "dns")
	}) {
		return true
	}
	if !port.within(r.ports) {
		return false
	}
	narrow := slices.ContainsFunc(r.ports, func(p ports) bool { return !p.every && p.high-p.low < 100 && port.within([]ports{p}) })
	return narrow || slices.ContainsFunc(r.peers, l.mayResolve)
}

// clusterDNS is how the cluster's resolvers are labelled everywhere.
var clusterDNS = &identity.Workload{
	Namespace: "kube-system", Labels: identity.Labels{"k8s-app": "kube-dns"}, NamespaceLabels: identity.Labels{nameLabel: "kube-system"},
}

func (l *linter) mayResolve(p peer) bool {
	switch p.kind {
	case everybody, byService:
		return true
	case byPods:
		return p.pods.match(clusterDNS) || l.view != nil && slices.ContainsFunc(l.view.Workloads, func(w *identity.Workload) bool {
			return p.pods.match(w) && slices.ContainsFunc(w.Ports, func(c identity.ContainerPort) bool { return c.Protocol == identity.UDP && c.Port == 53 })
		})
	case byNetwork:
		return p.name == policy.NetworkDNS || p.name == policy.NetworkCluster || p.name == policy.NetworkWorld
	case byBlock:
		return p.isWorld() || l.view != nil && slices.ContainsFunc(l.view.Resolvers, func(a netip.Addr) bool {
			return slices.ContainsFunc(p.pieces, func(x netip.Prefix) bool { return x.Contains(a) })
		})
	}
	return false
}

// asking is the rules that let workloads ask for names.
type asking struct {
	of      map[*policy.Policy][]*rule
	spaces  map[string][]*rule // by namespace
	cluster []*rule            // of cluster-wide policies
}

func (l *linter) learnDNS() {
	l.asking = asking{of: map[*policy.Policy][]*rule{}, spaces: map[string][]*rule{}}
	for _, r := range l.rules {
		switch {
		case !l.opensDNS(r, dnsUDP) && !l.opensDNS(r, dnsTCP):
			continue
		case clusterWide(r.of):
			l.asking.cluster = append(l.asking.cluster, r)
		default:
			l.asking.spaces[r.of.Namespace] = append(l.asking.spaces[r.of.Namespace], r)
		}
		l.asking.of[r.of] = append(l.asking.of[r.of], r)
	}
}

// asks says whether one of the rules that may let the policy's workloads ask for names does; its own
// are tried first, since they most often do. When the bound of comparisons is reached the answer is
// yes.
func (l *linter) asks(p *policy.Policy, does func(*rule) bool) bool {
	for _, list := range [][]*rule{l.asking.of[p], l.asking.cluster, l.asking.spaces[p.Namespace]} {
		for _, r := range list {
			if l.pairs++; l.pairs > l.options.Bound || compares(r.of, p) && does(r) {
				return true
			}
		}
	}
	return false
}

// dns tells of workloads whose egress is isolated, whose peers have names, and that may not ask for
// them.
func (l *linter) dns(p *policy.Policy) {
	if clusterWide(p) || !p.Isolates(policy.Egress) || !slices.ContainsFunc(p.Spec.Egress, needsNames) {
		return
	}
	subject := subjectOf(p)
	lets := func(port ports) bool {
		return l.asks(p, func(r *rule) bool { return l.opensDNS(r, port) && subject.within(r.subject) })
	}
	udp := lets(dnsUDP)
	if l.view != nil && !udp && l.eachAsks(p, subject) {
		return
	}
	switch {
	case !udp:
		f := l.add(p, "spec.egress", checkDNS, "egress is isolated and no rule lets the workloads ask a resolver (UDP and TCP port 53)")
		if p.Kind == policy.KindPolicy {
			f.fix("add - {to: [{network: dns}], ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]}; Bulkhead's own allowDNS, on by default, does the same")
			if l.view == nil || !l.options.Strict || !l.view.NoDNS {
				f.as(Note)
			}
		} else {
			f.fix("add an egress rule with ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]")
		}
	case !lets(dnsTCP):
		l.add(p, "spec.egress", checkDNSTCP, "DNS is allowed by UDP only; long answers come by TCP").fix("add {protocol: TCP, port: 53} beside UDP/53")
	}
}

// needsNames says whether a rule allows peers that are usually called by their names.
func needsNames(r policy.Rule) bool {
	if r.Action != policy.ActionAllow {
		return false
	}
	return len(r.Peers) == 0 || slices.ContainsFunc(r.Peers, func(x policy.Peer) bool {
		return x.IPBlock == nil && x.NodeSelector == nil && x.Network != policy.NetworkNode && x.Network != policy.NetworkMetadata
	})
}

// eachAsks says whether every workload that is selected may ask for names by one rule or another.
func (l *linter) eachAsks(p *policy.Policy, subject pods) bool {
	found, _ := l.matching(subject)
	for _, w := range found {
		if !l.asks(p, func(r *rule) bool { return l.opensDNS(r, dnsUDP) && r.subject.match(w) }) {
			return false
		}
	}
	return len(found) > 0
}
