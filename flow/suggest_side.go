package flow

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// fewAddresses is up to how many addresses of the world at one port are written one by one.
const fewAddresses = 8

// fewLines is how many edges a comment names one by one.
const fewLines = 16

// side makes the rules of one direction of a service, and notes on what has none. No rules: the
// direction is not to be isolated, and a note says why.
func (s *suggester) side(svc identity.Service, dir policy.Direction, edges []*Edge) (rules []policy.Rule, notes []string) {
	var seen, left []*Edge
	evidence := false
	for _, e := range edges {
		switch {
		case !e.Allowed():
			left = append(left, e)
		default:
			seen = append(seen, e)
			evidence = evidence || !s.builtIn(e, dir) && s.canSay(e)
		}
	}
	if !evidence {
		why := "nothing was seen"
		if len(seen) > 0 {
			why = "only " + s.onlySeen(seen, dir) + " was seen"
		}
		notes = append(notes, fmt.Sprintf("%s is left open: %s in that direction.", title(dir), why))
		return nil, append(notes, s.leftOut(left)...)
	}
	for _, g := range s.groups(seen, dir) {
		r, note := s.rule(svc, g, dir)
		if r == nil {
			notes = append(notes, note...)
			continue
		}
		rules = append(rules, *r)
	}
	return rules, append(notes, s.leftOut(left)...)
}

func title(dir policy.Direction) string {
	if dir == policy.Egress {
		return "Egress"
	}
	return "Ingress"
}

// builtIn says that policy allows the edge by itself: probes of the own node, and questions to the
// resolvers. Such an edge says nothing of what else the service needs.
func (s *suggester) builtIn(e *Edge, dir policy.Direction) bool {
	if dir == policy.Ingress {
		return e.Client.Kind == identity.Node
	}
	if e.Port != 53 || e.Protocol != identity.UDP && e.Protocol != identity.TCP {
		return false
	}
	if e.Server.Kind == identity.Resolver {
		return true
	}
	return slices.ContainsFunc(e.VIPs.Items, func(it Seen[Dialled]) bool { return slices.Contains(s.view.Resolvers, it.What.Key.Addr) }) ||
		slices.ContainsFunc(s.members[e.Server.Service], func(w *identity.Workload) bool {
			return slices.ContainsFunc(w.Addrs, func(a netip.Addr) bool { return slices.Contains(s.view.Resolvers, a) })
		})
}

// canSay says whether the format has words for the edge's protocol.
func (s *suggester) canSay(e *Edge) bool {
	return e.Protocol.HasPorts() || e.Protocol.IsICMP() && s.Format == Native
}

func (s *suggester) onlySeen(seen []*Edge, dir policy.Direction) string {
	all := func(is func(*Edge) bool) bool {
		return !slices.ContainsFunc(seen, func(e *Edge) bool { return !is(e) })
	}
	switch {
	case all(func(e *Edge) bool { return !s.canSay(e) }):
		return "what this format cannot say (" + PortName(seen[0].Protocol, seen[0].Port) + ")"
	case dir == policy.Ingress:
		return "the node itself, which is always let in,"
	}
	return "DNS, which is always allowed,"
}

// peerGroup is edges of one direction that become one rule: all with one peer, or all of the world at
// one port.
type peerGroup struct {
	peer  End // for the world: any
	world bool
	wide  bool // the world as such, not address by address
	edges []*Edge
}

// groups sorts the edges of one direction into rules: services first, then named peers, then the
// world by port.
func (s *suggester) groups(edges []*Edge, dir policy.Direction) []peerGroup {
	type id struct {
		end   End
		proto identity.Protocol
		port  uint16
		apart bool
	}
	byID := map[id]*peerGroup{}
	var order []id
	for _, e := range edges {
		k := id{end: peerEnd(e, dir)}
		if k.end.Kind == identity.World {
			k = id{end: k.end.wide(), proto: e.Protocol, port: e.Port, apart: s.apart(k.end)}
		}
		g := byID[k]
		if g == nil {
			g = &peerGroup{peer: k.end, world: k.end.Kind == identity.World}
			byID[k], order = g, append(order, k)
		}
		g.edges = append(g.edges, e)
		g.wide = g.wide || g.world && !peerEnd(e, dir).Addr.IsValid()
	}
	slices.SortStableFunc(order, func(a, b id) int {
		return cmp.Or(a.end.Compare(b.end), cmp.Compare(a.proto, b.proto), cmp.Compare(a.port, b.port), boolCompare(a.apart, b.apart))
	})
	out := make([]peerGroup, len(order))
	for i, k := range order {
		g := byID[k]
		g.wide = g.wide || g.world && !k.apart && len(g.edges) > fewAddresses
		slices.SortStableFunc(g.edges, func(a, b *Edge) int {
			return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port), peerEnd(a, dir).Compare(peerEnd(b, dir)))
		})
		out[i] = *g
	}
	return out
}

// apart says that an address is named like the world's, as nobody claims it, but is not part of
// what policies call the world: it can only be written by itself.
func (s *suggester) apart(e End) bool {
	if !e.Addr.IsValid() {
		return false
	}
	for _, p := range s.view.World() {
		if p.Contains(e.Addr) {
			return false
		}
	}
	return true
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func peerEnd(e *Edge, dir policy.Direction) End {
	if dir == policy.Egress {
		return e.Server
	}
	return e.Client
}

// rule makes one rule of a group, or notes why there is none.
func (s *suggester) rule(svc identity.Service, g peerGroup, dir policy.Direction) (*policy.Rule, []string) {
	name := g.peer.String()
	if g.world && !g.wide {
		name = "addresses of the world"
	}
	var said []*Edge
	var notes []string
	for _, e := range g.edges {
		if s.canSay(e) {
			said = append(said, e)
			continue
		}
		notes = append(notes, fmt.Sprintf("Left out, %s cannot say it: %s.", s.kind(), clean(e.Key.String())))
	}
	if len(said) == 0 {
		return nil, notes
	}
	peers, remark := s.peersOf(svc, g, dir)
	if len(peers) == 0 {
		return nil, append(notes, remark)
	}
	word := "From "
	if dir == policy.Egress {
		word = "To "
	}
	r := &policy.Rule{Peers: peers, Ports: portsOf(said), Comment: []string{clean(word + name + ":")}}
	if remark != "" {
		r.Comment = append(r.Comment, remark)
	}
	r.Comment = append(r.Comment, s.evidence(svc, said, g, dir)...)
	r.Comment = append(r.Comment, notes...)
	return r, nil
}

func (s *suggester) kind() string {
	if s.Format == Kubernetes {
		return policy.KindNetworkPolicy
	}
	return policy.KindPolicy
}

// portsOf lists the ports of edges, each once, sorted; where there are many, neighbours become a
// range.
func portsOf(edges []*Edge) []policy.Port {
	var out []policy.Port
	ranges := len(edges) > fewLines
	var last *Edge
	for _, e := range edges {
		switch {
		case last != nil && last.Protocol == e.Protocol && last.Port == e.Port:
			continue
		case ranges && last != nil && last.Protocol == e.Protocol && e.Protocol.HasPorts() && e.Port == last.Port+1:
			end := int32(e.Port)
			out[len(out)-1].EndPort = &end
		default:
			out = append(out, policy.PortNumber(e.Protocol, e.Port))
		}
		last = e
	}
	return out
}
