package policy

import (
	"net/netip"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// maxLinkValues is how many values a term of a selector may list to be looked up by each of them.
const maxLinkValues = 16

// links finds the rules whose peers a workload or an address could be, without asking all of them. It
// is made when it is first asked for.
type links struct {
	once        sync.Once
	labels      map[labelLink][]link // peers that want a label; without key, all pods of a namespace
	byNamespace map[spaceLink][]link // peers that want a label of the namespace
	rest        []link               // selecting peers without either
	served      map[string][]link    // by namespace: peers that are a Service
	blocks      map[netip.Prefix][]link
	bits        [2][]int // prefix lengths in blocks, by family
	nets        []link   // egress to named networks
	named       []link   // egress by address and a port's name, which is looked up at the workload that owns it
	loose       []link   // egress to nodes and resolvers
}

// link leads to a rule; peer is nil where the rule is about everybody.
type link struct {
	*rule
	peer *peer
}

type labelLink struct{ namespace, key, value string } // namespace "": any
type spaceLink struct{ key, value string }

// linked gives the set's links.
func (s *Set) linked() *links {
	s.links.once.Do(func() { s.links.build(s.policies) })
	return &s.links
}

func (l *links) build(policies []*compiled) {
	l.labels, l.byNamespace = map[labelLink][]link{}, map[spaceLink][]link{}
	l.served, l.blocks = map[string][]link{}, map[netip.Prefix][]link{}
	uses := map[spaceLink]int{} // of a label, so that the rarest is what a peer is found by
	var all []link
	for _, c := range policies {
		for _, h := range []*half{c.egress, c.ingress} {
			if h == nil {
				continue
			}
			for i := range h.rules {
				all = h.rules[i].links(all)
			}
		}
	}
	for _, x := range all {
		if x.peer == nil || !x.peer.selects || x.peer.pods == nil {
			continue
		}
		for i := range x.peer.pods.terms {
			t := &x.peer.pods.terms[i]
			for _, v := range t.values {
				uses[spaceLink{t.key, v}]++
			}
		}
	}
	for _, x := range all {
		l.add(x, uses)
	}
	var seen [2][129]bool
	for p := range l.blocks {
		seen[familyOfAddr(p.Addr())][p.Bits()] = true
	}
	for f := range seen {
		for bits, yes := range seen[f] {
			if yes {
				l.bits[f] = append(l.bits[f], bits)
			}
		}
	}
}

func (r *rule) links(out []link) []link {
	if len(r.peers) == 0 {
		return append(out, link{r, nil})
	}
	for i := range r.peers {
		out = append(out, link{r, &r.peers[i]})
	}
	return out
}

// byPortName says that what the rule allows depends on ports that the other end declares.
func (r *rule) byPortName() bool {
	for i := range r.ports {
		if r.ports[i].name != "" {
			return r.dir == Egress
		}
	}
	return false
}

func (l *links) add(x link, uses map[spaceLink]int) {
	p := x.peer
	switch {
	case p == nil:
		l.block(x, identity.Everything)
	case p.selects:
		l.selecting(x, uses)
		if x.dir == Egress && p.wholeCluster() {
			l.nets = append(l.nets, x)
		}
	case p.network == NetworkCluster:
		l.rest = append(l.rest, x)
		l.nets = append(l.nets, x)
	case p.network == NetworkNode, p.network == NetworkDNS, p.nodes != nil:
		if x.dir == Egress {
			l.loose = append(l.loose, x)
		}
	case p.network != "":
		if x.dir == Egress {
			l.nets = append(l.nets, x)
		}
	case p.service != nil:
		l.served[p.service.Namespace] = append(l.served[p.service.Namespace], x)
	case p.dnsName == "":
		l.block(x, p.pieces)
	}
}

// block notes a peer by address. At ingress it is what is written, whoever is there.
func (l *links) block(x link, blocks []netip.Prefix) {
	if x.dir != Egress {
		return
	}
	if x.byPortName() {
		l.named = append(l.named, x)
	}
	for _, b := range blocks {
		l.blocks[b] = append(l.blocks[b], x)
	}
}

// selecting notes a peer under the term that the fewest share.
func (l *links) selecting(x link, uses map[spaceLink]int) {
	p := x.peer
	own := ""
	if p.spaces == nil {
		own = p.own
	}
	if best := rarest(p.pods, uses); best != nil {
		for _, v := range best.values {
			k := labelLink{own, best.key, v}
			l.labels[k] = append(l.labels[k], x)
		}
		return
	}
	if p.spaces == nil {
		l.labels[labelLink{namespace: own}] = append(l.labels[labelLink{namespace: own}], x)
		return
	}
	if best := rarest(p.spaces, nil); best != nil {
		for _, v := range best.values {
			k := spaceLink{best.key, v}
			l.byNamespace[k] = append(l.byNamespace[k], x)
		}
		return
	}
	l.rest = append(l.rest, x)
}

// rarest is the term that says which values a label may have, with the fewest uses; nil: there is none.
func rarest(s *selector, uses map[spaceLink]int) *term {
	if s == nil {
		return nil
	}
	var best *term
	least := 0
	for i := range s.terms {
		t := &s.terms[i]
		if t.op != metav1.LabelSelectorOpIn || len(t.values) > maxLinkValues {
			continue
		}
		n := 0
		for _, v := range t.values {
			n += uses[spaceLink{t.key, v}]
		}
		if best == nil || n < least {
			best, least = t, n
		}
	}
	return best
}

// selectable calls do with every selecting peer that a workload could be; one may come several times.
func (l *links) selectable(w *identity.Workload, do func(link)) {
	each := func(list []link) {
		for _, x := range list {
			do(x)
		}
	}
	each(l.rest)
	each(l.labels[labelLink{namespace: w.Namespace}])
	for k, v := range w.Labels {
		each(l.labels[labelLink{w.Namespace, k, v}])
		each(l.labels[labelLink{"", k, v}])
	}
	for k, v := range w.NamespaceLabels {
		each(l.byNamespace[spaceLink{k, v}])
	}
}

// around calls do with every egress rule that is about a block with an address in it.
func (l *links) around(v *identity.View, a netip.Addr, do func(link)) {
	for _, bits := range l.bits[familyOfAddr(a)] {
		if p, err := a.Prefix(bits); err == nil {
			for _, x := range l.blocks[p] {
				do(x)
			}
		}
	}
	for _, x := range l.nets {
		if inBlocks(x.peer.networkBlocks(v), a) {
			do(x)
		}
	}
}

// networkBlocks are the blocks of a peer that is a named network, or the whole cluster.
func (p *peer) networkBlocks(v *identity.View) []netip.Prefix {
	switch p.network {
	case "", NetworkCluster:
		return v.Cluster()
	case NetworkWorld:
		return v.World()
	}
	return v.Networks[p.network]
}
