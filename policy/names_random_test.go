package policy

import (
	"net/netip"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// named gives some allowing egress rules a DNS name as a peer.
func (d dice) named(list []Policy) {
	for i := range list {
		p := &list[i]
		for j := range p.Spec.Egress {
			r := &p.Spec.Egress[j]
			if p.Kind == KindNetworkPolicy || r.Action != ActionAllow || !d.chance(50) || len(r.Peers) == 0 {
				continue
			}
			r.Peers = append(r.Peers, Peer{DNSName: d.pick("a.test", "*.b.test")})
			r.Ports = slices.DeleteFunc(r.Ports, func(x Port) bool { return x.Port != nil && x.Port.Type == intstr.String })
		}
	}
}

// opened is the obvious reading of a side for an address that was learned by a name.
func opened(s Side, name string, a netip.Addr, p identity.Protocol, port uint16) bool {
	if allows(s, a, p, port) {
		return true
	}
	if slices.ContainsFunc(s.Denied, func(e Entry) bool { return e.Peer.Contains(a) && e.Covers(p, port) }) {
		return false
	}
	return slices.ContainsFunc(s.Names, func(n NameEntry) bool {
		return MatchesName(n.Name, name) && Entry{Protocol: n.Protocol, Port: n.Port, EndPort: n.EndPort}.Covers(p, port) && sameFamily(n.Protocol, a)
	})
}

// TestNamesAgreeWithEvaluate: an address that is known by a name gets what the evaluator says. Where
// several rules with names stand in line, what is denied between them may be denied to the first, too, and
// a Service's address is what the workloads behind it are (no name opens one); never is more let through.
func TestNamesAgreeWithEvaluate(t *testing.T) {
	d := newDice(t)
	compared, byName, strict := 0, 0, 0
	for range 250 {
		var list []Policy
		for i := range d.IntN(5) {
			list = append(list, d.policy(i))
		}
		for i := range d.IntN(4) {
			list = append(list, d.clusterPolicy(i))
		}
		d.named(list)
		var all []*compiled
		for i := range list {
			all = append(all, read(&list[i]))
		}
		s, v := newSet(all), d.cluster()
		for _, w := range v.Workloads {
			if len(w.Addrs) == 0 || w.HostNetwork {
				continue
			}
			l := s.lineup(w, Egress)
			rules := 0
			l.each(func(r *rule, _ bool, _ int32) {
				if slices.ContainsFunc(r.peers, func(p peer) bool { return p.dnsName != "" }) {
					rules++
				}
			})
			if rules == 0 {
				continue
			}
			side := s.Entries(v, w).Egress
			wellFormed(t, side)
			for range 60 {
				a := d.addr()
				if slices.Contains(w.Addrs, a) {
					continue
				}
				p, port := d.question(a)
				name := d.pick("a.test", "x.b.test", "b.test")
				own := identity.Peer{Kind: identity.Pod, Addr: w.Addrs[0], Workload: w}
				want := s.Evaluate(v, Connection{Client: own, Server: v.Peer(a), Protocol: p, Port: port, Names: []string{name}}).Egress
				got := opened(side, name, a, p, port)
				compared++
				if got && !allows(side, a, p, port) {
					byName++
				}
				_, vip := v.VIPNames[a]
				exact := rules == 1 && !vip
				if exact {
					strict++
				}
				if got && want.Verdict != Allow || !got && want.Verdict == Allow && exact {
					t.Fatalf("%s/%s to %s as %s %s/%d: kernel allows: %v; evaluate: %s: %s\n%s%v", w.Namespace, w.Name, a, name, p, port, got, want.Verdict, want.Reason, dump(side), side.Names)
				}
			}
		}
	}
	t.Logf("%d connections, %d with one rule by name, %d opened by a name", compared, strict, byName)
}
