package lint

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// clusterWide says that the policy is of no namespace.
func clusterWide(p *policy.Policy) bool { return p.Namespace == "" }

// selected checks whom the policy is about.
func (l *linter) selected(p *policy.Policy) {
	const path = "spec.podSelector"
	subject := subjectOf(p)
	if l.contradicts(p, path, &p.Spec.PodSelector) || l.contradicts(p, "spec.namespaceSelector", p.Spec.NamespaceSelector) || l.view == nil {
		return
	}
	found, hosts := l.matching(subject)
	switch {
	case len(found) > 0:
		l.negatives(p, path, &p.Spec.PodSelector)
		return
	case hosts > 0:
		l.add(p, path, checkHostNetwork, "%s matches only workloads in their node's network (%d); the policy selects nothing",
			show(&p.Spec.PodSelector), hosts).fix("protect the node itself by its host firewall")
		return
	case clusterWide(p) && l.noNamespace(p, "spec.namespaceSelector", p.Spec.NamespaceSelector, subject.spaces):
		return
	case !clusterWide(p) && len(l.view.In(p.Namespace)) == 0:
		f := l.add(p, "metadata.namespace", checkNothing, "no workload of namespace %s is known%s", p.Namespace, didYouMean(p.Namespace, l.known.namespaces))
		f.fix("correct the namespace, or deploy what the policy is for")
		if subject.own.free() && policy.Nearest(p.Namespace, l.known.namespaces) == "" {
			f.as(Note)
		}
		return
	}
	if !l.typos(p, path, &p.Spec.PodSelector, l.known.pods) {
		l.add(p, path, checkNothing, "%s selects no known workload%s", show(&p.Spec.PodSelector), inWhich(p)).
			fix("correct the labels: %s", l.hint(p))
	}
}

func inWhich(p *policy.Policy) string {
	if clusterWide(p) {
		return ""
	}
	return " of namespace " + p.Namespace
}

// hint lists a few of the services that are there.
func (l *linter) hint(p *policy.Policy) string {
	var names []string
	for _, w := range l.view.Workloads {
		if !w.HostNetwork && (clusterWide(p) || w.Namespace == p.Namespace) && !slices.Contains(names, w.Service.Name) {
			names = append(names, w.Service.Name)
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		return "there are no workloads that a policy could select"
	}
	return "services there are " + some(names)
}

// matching lists the workloads that are meant, and counts those that would be if they had a network
// of their own.
func (l *linter) matching(p pods) (found []*identity.Workload, hosts int) {
	for _, w := range l.candidates(p) {
		switch {
		case !p.matchWherever(w):
		case w.HostNetwork:
			hosts++
		default:
			found = append(found, w)
		}
	}
	return found, hosts
}

// candidates narrows down by one namespace or one label who can be meant.
func (l *linter) candidates(p pods) []*identity.Workload {
	if c, ok := p.spaces[nameLabel]; ok && c.single() {
		return l.view.In(c.values[0])
	}
	for k, c := range p.own {
		if c.single() {
			return l.view.Labelled(k, c.values[0])
		}
	}
	if p.spaces.free() {
		return l.view.Workloads
	}
	var out []*identity.Workload
	for _, space := range l.known.namespaces {
		if in := l.view.In(space); len(in) > 0 && p.spaces.matches(spaceLabels(in[0])) {
			out = append(out, in...)
		}
	}
	return out
}

// contradicts tells of a selector that nothing can fulfil.
func (l *linter) contradicts(p *policy.Policy, path string, s *metav1.LabelSelector) bool {
	key := readLabels(s).contradiction()
	if key == "" {
		return false
	}
	at := fmt.Sprintf("%s.matchLabels[%s]", path, key)
	for i, e := range s.MatchExpressions {
		if e.Key == key {
			at = fmt.Sprintf("%s.matchExpressions[%d]", path, i)
		}
	}
	l.add(p, at, checkNever, "the terms for label %q exclude each other: %s matches nothing", key, show(s)).
		fix("keep one of the terms; to match either value use one term: {key: %s, operator: In, values: [...]}", key)
	return true
}

// noNamespace tells of a namespace selector that selects no known namespace.
func (l *linter) noNamespace(p *policy.Policy, path string, s *metav1.LabelSelector, want labels) bool {
	if s == nil || slices.ContainsFunc(l.view.Workloads, func(w *identity.Workload) bool { return want.matches(spaceLabels(w)) }) {
		return false
	}
	if !l.typos(p, path, s, l.known.spaces) {
		l.add(p, path, checkNoNamespace, "%s matches no known namespace", show(s)).
			fix("correct the labels; a namespace's name is label %s, and namespaces here are %s", nameLabel, some(l.known.namespaces))
	}
	return true
}

// peer checks one end of a rule.
func (l *linter) peer(r *rule, i int) {
	x, p := r.Peers[i], r.peers[i]
	path := r.peerPath(i)
	switch p.kind {
	case byPods:
		l.podPeer(r, path, x, p)
	case byBlock:
		l.block(r, path, x, p)
	case byNetwork:
		l.network(r, path, x.Network)
	case byService:
		l.service(r, path, p.name)
	case byName:
		l.clusterName(r, path, p.name)
	case byNodes:
		l.nodes(r, path+".nodes", x.NodeSelector, p.nodes)
	}
}

// nodes checks a peer that selects nodes by labels.
func (l *linter) nodes(r *rule, path string, s *metav1.LabelSelector, want labels) {
	if l.contradicts(r.of, path, s) || l.view == nil || len(l.view.Nodes) == 0 {
		return
	}
	for _, n := range l.view.Nodes {
		if want.matches(n.Labels) {
			return
		}
	}
	l.add(r.of, path, checkNobody, "%s matches no known node", show(s)).fix("correct the labels, or remove the peer")
}

// peerPath is where a peer stands: "spec.ingress[0].from[1]".
func (r *rule) peerPath(i int) string {
	list := "from"
	if r.dir == policy.Egress {
		list = "to"
	}
	return fmt.Sprintf("%s.%s[%d]", r.path(), list, i)
}

func (l *linter) podPeer(r *rule, path string, x policy.Peer, p peer) {
	pods, spaces := path+".podSelector", path+".namespaceSelector"
	if l.contradicts(r.of, pods, x.PodSelector) || l.contradicts(r.of, spaces, x.NamespaceSelector) || l.view == nil {
		return
	}
	found, hosts := l.matching(p.pods)
	if len(found) > 0 {
		l.negatives(r.of, pods, x.PodSelector)
		l.negatives(r.of, spaces, x.NamespaceSelector)
		return
	}
	at := pods
	if x.PodSelector == nil {
		at = spaces
	}
	switch {
	case hosts > 0:
		l.add(r.of, at, checkHostNetwork, "%s matches only workloads in their node's network (%d); they are known by the node's address", x, hosts).
			fix("in a %s use network: node, elsewhere an ipBlock of the nodes' addresses", policy.KindPolicy)
	case l.noNamespace(r.of, spaces, x.NamespaceSelector, p.pods.spaces):
	case x.PodSelector != nil && l.typos(r.of, pods, x.PodSelector, l.known.pods):
	default:
		f := l.add(r.of, at, checkNobody, "%s matches no known workload%s", x, elsewhere(l.view, x, r.of))
		f.fix("correct the labels, or remove the peer")
	}
}

// elsewhere says that another namespace has what a podSelector alone looks for in its own.
func elsewhere(v *identity.View, x policy.Peer, p *policy.Policy) string {
	if x.NamespaceSelector != nil || x.PodSelector == nil || clusterWide(p) {
		return ""
	}
	own := readLabels(x.PodSelector)
	for _, w := range v.Workloads {
		if !w.HostNetwork && own.matches(w.Labels) {
			return fmt.Sprintf(" of namespace %s; namespace %s has some, and a podSelector alone is about the policy's own namespace: add namespaceSelector: {matchLabels: {%s: %s}} to the same list item",
				p.Namespace, w.Namespace, nameLabel, w.Namespace)
		}
	}
	return " of namespace " + p.Namespace
}

func (l *linter) network(r *rule, path, name string) {
	built := []string{policy.NetworkWorld, policy.NetworkCluster, policy.NetworkNode, policy.NetworkDNS, policy.NetworkMetadata}
	known := slices.Clone(built)
	if l.view != nil {
		known = append(known, slices.Sorted(maps.Keys(l.view.Networks))...)
	}
	if slices.Contains(known, name) {
		return
	}
	near := policy.Nearest(name, known)
	f := l.add(r.of, path+".network", checkNetwork, "network %q is none of the built-in ones (%s); without it in the daemon's configuration the peer is nobody",
		name, strings.Join(built, ", "))
	switch {
	case near != "":
		f.fix("write network: %s", near).replace(name, near)
	case !l.options.Strict:
		f.fix("see that networks of the daemon's configuration has it").as(Note)
	default:
		f.fix("add it to networks of the daemon's configuration")
	}
}

func (l *linter) service(r *rule, path, name string) {
	if l.view == nil || slices.Contains(l.known.services, name) {
		return
	}
	f := l.add(r.of, path+".service", checkService, "Service %s is not known", name)
	if near := policy.Nearest(name, l.known.services); near != "" {
		f.fix("write %s", near)
	} else {
		f.fix("correct its name or namespace, or select its workloads by labels")
	}
}

// show names a selector for people.
func show(s *metav1.LabelSelector) string {
	if s == nil || len(s.MatchLabels) == 0 && len(s.MatchExpressions) == 0 {
		return "the selector {}"
	}
	return fmt.Sprintf("%q", metav1.FormatLabelSelector(s))
}
