package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// dice makes random clusters and policies from small vocabularies, so that things often meet.
type dice struct{ *rand.Rand }

func newDice(t testing.TB) dice {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("BULKHEAD_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("BULKHEAD_SEED=%d", seed)
	return dice{rand.New(rand.NewPCG(seed, 7))}
}

func (d dice) pick(list ...string) string { return list[d.IntN(len(list))] }
func (d dice) chance(percent int) bool    { return d.IntN(100) < percent }

var names = []string{"a", "b", "c"}

func (d dice) labels() map[string]string {
	l := map[string]string{}
	for _, k := range []string{"app", "tier", "x"} {
		if d.chance(60) {
			l[k] = d.pick(names...)
		}
	}
	return l
}

func (d dice) selector() metav1.LabelSelector {
	s := metav1.LabelSelector{}
	if d.chance(20) {
		return s
	}
	if d.chance(60) {
		s.MatchLabels = map[string]string{d.pick("app", "tier", "x"): d.pick(names...)}
	}
	for d.chance(30) {
		e := metav1.LabelSelectorRequirement{Key: d.pick("app", "tier", "x"), Operator: metav1.LabelSelectorOperator(d.pick("In", "NotIn", "Exists", "DoesNotExist"))}
		if e.Operator == "In" || e.Operator == "NotIn" {
			e.Values = []string{d.pick(names...), d.pick(names...)}
		}
		s.MatchExpressions = append(s.MatchExpressions, e)
	}
	return s
}

// addr4 and addr6 draw from few hosts, so that blocks, pods, nodes and Services meet.
func (d dice) addr() netip.Addr {
	switch d.IntN(12) {
	case 0:
		return netip.AddrFrom4([4]byte{203, 0, 113, byte(d.IntN(4))})
	case 1:
		return netip.AddrFrom4([4]byte{byte(d.IntN(256)), byte(d.IntN(256)), byte(d.IntN(256)), byte(d.IntN(256))})
	case 2, 3:
		return netip.AddrFrom4([4]byte{10, 96, 0, byte(d.IntN(8))})
	case 4, 5, 6:
		a := netip.MustParseAddr("fd00::").As16()
		a[7], a[15] = byte(d.IntN(2)), byte(d.IntN(12))
		return netip.AddrFrom16(a)
	case 7:
		a := netip.MustParseAddr("2001:db8::").As16()
		a[5], a[15] = byte(d.IntN(2)), byte(d.IntN(4))
		return netip.AddrFrom16(a)
	}
	return netip.AddrFrom4([4]byte{10, 0, byte(d.IntN(2)), byte(d.IntN(12))})
}

func (d dice) block() *networkingv1.IPBlock {
	a := d.addr()
	bits := []int{0, 8, 16, 23, 24, 26, 28, 30, 31, 32}[d.IntN(10)]
	if a.Is6() {
		bits = []int{0, 16, 48, 63, 64, 112, 124, 126, 127, 128}[d.IntN(10)]
	}
	p := netip.PrefixFrom(a, bits).Masked()
	b := &networkingv1.IPBlock{CIDR: p.String()}
	for d.chance(40) {
		for range 20 {
			e := netip.PrefixFrom(d.addr(), min(a.BitLen(), bits+1+d.IntN(12)))
			if e.Addr().Is4() == a.Is4() && p.Contains(e.Addr()) && e.Bits() > bits && e.Bits() <= a.BitLen() {
				b.Except = append(b.Except, e.Masked().String())
				break
			}
		}
	}
	return b
}

func (d dice) peer(native bool) Peer {
	if native && d.chance(35) {
		return Peer{Network: d.pick("world", "node", "dns", "cluster", "metadata", "lab", "nobody")}
	}
	if native && d.chance(15) {
		return Peer{Service: &ServiceRef{Namespace: d.pick(names...), Name: d.pick("s0", "s1", "s2")}}
	}
	if d.chance(45) {
		return Peer{IPBlock: d.block()}
	}
	p := Peer{}
	if d.chance(60) {
		s := d.selector()
		p.PodSelector = &s
	}
	if d.chance(40) || p.PodSelector == nil {
		s := d.selector()
		p.NamespaceSelector = &s
	}
	return p
}

var portNumbers = []uint16{1, 53, 80, 81, 443, 8080, 8081, 65535}

func (d dice) port(native bool) Port {
	protocols := []identity.Protocol{identity.TCP, identity.TCP, identity.UDP, identity.SCTP, identity.AnyProtocol}
	if native {
		protocols = append(protocols, identity.ICMP, identity.ICMPv6)
	}
	p := Port{Protocol: protocols[d.IntN(len(protocols))]}
	if p.Protocol.IsICMP() {
		if d.chance(70) {
			p = PortNumber(p.Protocol, []uint16{0, 8, 128, 255}[d.IntN(4)])
		}
		return p
	}
	switch d.IntN(6) {
	case 0:
		return p
	case 1:
		return PortName(p.Protocol, d.pick("http", "dns", "admin"))
	case 2:
		p = PortNumber(p.Protocol, portNumbers[d.IntN(len(portNumbers))])
		end := p.Port.IntVal + int32(d.IntN(int(65536-p.Port.IntVal)))
		if d.chance(50) {
			end = min(65535, p.Port.IntVal+int32(d.IntN(4)))
		}
		p.EndPort = &end
		return p
	}
	return PortNumber(p.Protocol, portNumbers[d.IntN(len(portNumbers))])
}

func (d dice) rules(native bool) []Rule {
	var out []Rule
	for range d.IntN(4) {
		r := Rule{}
		for d.chance(65) && len(r.Peers) < 4 {
			r.Peers = append(r.Peers, d.peer(native))
		}
		for d.chance(55) && len(r.Ports) < 4 {
			r.Ports = append(r.Ports, d.port(native))
		}
		if native && d.chance(35) {
			r.Action = ActionDeny
		}
		out = append(out, r)
	}
	return out
}

func (d dice) policy(i int) Policy {
	native := d.chance(50)
	p := Policy{Kind: KindNetworkPolicy, Namespace: d.pick(names...), Name: "p" + strconv.Itoa(i)}
	if native {
		p.Kind = KindPolicy
	}
	p.Spec.PodSelector = d.selector()
	p.Spec.PolicyTypes = [][]networkingv1.PolicyType{nil, {"Ingress"}, {"Egress"}, {"Ingress", "Egress"}}[d.IntN(4)]
	p.Spec.Ingress, p.Spec.Egress = d.rules(native), d.rules(native)
	if native && d.chance(40) {
		p.Spec.Priority = int32(1 + d.IntN(3))
	}
	if native && d.chance(30) {
		for _, rules := range [][]Rule{p.Spec.Ingress, p.Spec.Egress} {
			for i := range rules {
				rules[i].Action = ActionDeny
			}
		}
	}
	return p
}

// clusterPolicy is a policy of the admin or the baseline tier.
func (d dice) clusterPolicy(i int) Policy {
	p := Policy{Kind: KindClusterNetworkPolicy, Name: "c" + strconv.Itoa(i)}
	p.Spec.Tier = []Tier{AdminTier, AdminTier, BaselineTier}[d.IntN(3)]
	p.Spec.Priority = int32(d.IntN(4))
	if d.chance(60) {
		s := d.selector()
		p.Spec.NamespaceSelector = &s
	}
	if d.chance(60) {
		p.Spec.PodSelector = d.selector()
	}
	rules := func(dir Direction) []Rule {
		out := d.rules(false)
		for i := range out {
			out[i].Action = []Action{ActionAllow, ActionDeny, ActionDeny, ActionPass}[d.IntN(4)]
			if len(out[i].Peers) == 0 {
				out[i].Peers = []Peer{d.peer(false)}
			}
			if dir == Egress && d.chance(20) {
				s := d.selector()
				out[i].Peers = append(out[i].Peers, Peer{NodeSelector: &s})
			}
		}
		return out
	}
	p.Spec.Ingress, p.Spec.Egress = rules(Ingress), rules(Egress)
	return p
}

func (d dice) set(t testing.TB) *Set {
	var list []Policy
	for i := range d.IntN(6) {
		list = append(list, d.policy(i))
	}
	for i := range d.IntN(4) {
		list = append(list, d.clusterPolicy(i))
	}
	var all []*compiled
	for i := range list {
		all = append(all, read(&list[i]))
	}
	return newSet(all)
}

func (d dice) ports() []identity.ContainerPort {
	var out []identity.ContainerPort
	for _, n := range []string{"http", "dns", "admin"} {
		if d.chance(50) {
			proto := []identity.Protocol{identity.TCP, identity.UDP, identity.SCTP}[d.IntN(3)]
			out = append(out, identity.ContainerPort{Name: n, Protocol: proto, Port: portNumbers[d.IntN(len(portNumbers))]})
		}
	}
	return out
}

func (d dice) workload(i int) identity.Workload {
	w := identity.Workload{
		ID: fmt.Sprintf("w%02d", i), Namespace: d.pick(names...), Name: fmt.Sprintf("pod%d", i), Labels: d.labels(),
		Ports: d.ports(), Node: d.pick("n1", "n2", ""), HostNetwork: d.chance(12), Source: identity.SourceInventory,
	}
	w.Local = w.Node == "n1"
	for range 1 + d.IntN(2) {
		w.Addrs = append(w.Addrs, d.addr())
	}
	return w
}

func (d dice) cluster() *identity.View { return d.index().View() }

func (d dice) index() *identity.Index {
	ix := identity.NewIndex("n1")
	spaces := map[string]identity.Labels{}
	for _, n := range names {
		spaces[n] = d.labels()
	}
	ix.SetNamespaceLabels(spaces)
	for i := range 3 + d.IntN(12) {
		ix.Upsert(d.workload(i))
	}
	ix.SetNode(d.addrs(3))
	ix.SetResolvers(d.addrs(2))
	ix.SetNetworks(map[string][]netip.Prefix{"lab": {netip.PrefixFrom(d.addr(), 30), netip.PrefixFrom(d.addr(), 20)}})
	if d.chance(40) {
		ix.SetPodBlocks([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/64")})
	}
	var services []identity.KubeService
	for i := range d.IntN(6) {
		s := identity.KubeService{Namespace: d.pick(names...), Name: "s" + strconv.Itoa(i), Addrs: d.addrs(2)}
		if d.chance(85) {
			s.Selector = identity.Labels{d.pick("app", "tier", "x"): d.pick(names...)}
		}
		for range 1 + d.IntN(3) {
			p := identity.ServicePort{
				Protocol: []identity.Protocol{identity.TCP, identity.UDP, identity.SCTP}[d.IntN(3)],
				Port:     portNumbers[d.IntN(len(portNumbers))], Target: portNumbers[d.IntN(len(portNumbers))],
			}
			if d.chance(30) {
				p.Target, p.TargetName = 0, d.pick("http", "dns", "admin")
			}
			s.Ports = append(s.Ports, p)
		}
		services = append(services, s)
	}
	ix.SetServices(services)
	if d.chance(50) {
		ix.SetNodes(map[string]identity.NodeInfo{"n1": {Labels: d.labels(), Addrs: d.addrs(2)}, "n2": {Labels: d.labels(), Addrs: d.addrs(2)}})
	}
	ix.SetBuiltIns(d.chance(80), d.chance(70))
	return ix
}

func (d dice) addrs(n int) []netip.Addr {
	var out []netip.Addr
	for range d.IntN(n + 1) {
		out = append(out, d.addr())
	}
	return out
}

// allows is the obvious reading of a side's entries.
func allows(s Side, a netip.Addr, p identity.Protocol, port uint16) bool {
	about := func(e Entry) bool { return e.Peer.Contains(a) && e.Covers(p, port) }
	return !slices.ContainsFunc(s.Denied, about) && (!s.Isolated || slices.ContainsFunc(s.Entries, about))
}

// TestEntriesAgreeWithEvaluate holds the two readings of the same policies against each other.
func TestEntriesAgreeWithEvaluate(t *testing.T) {
	d := newDice(t)
	compared, isolated, allowed := 0, 0, 0
	for range 150 {
		s, v := d.set(t), d.cluster()
		var probes []netip.Addr
		for a := range v.Owned() {
			probes = append(probes, a)
		}
		for a := range v.VIPNames {
			probes = append(probes, a)
		}
		probes = append(probes, v.NodeAddrs...)
		probes = append(probes, v.Resolvers...)
		for range 25 {
			probes = append(probes, d.addr())
		}
		for _, w := range v.Workloads {
			if len(w.Addrs) == 0 || w.HostNetwork {
				continue
			}
			sides := s.Entries(v, w)
			wellFormed(t, sides.Egress)
			wellFormed(t, sides.Ingress)
			for _, a := range probes {
				if v.Owner(a) == w {
					continue // its own traffic is never judged
				}
				for range 6 {
					compared++
					p, port := d.question(a)
					i, a := compare(t, s, v, w, sides, a, p, port)
					isolated, allowed = isolated+i, allowed+a
				}
				if t.Failed() {
					t.FailNow()
				}
			}
			for _, key := range v.VIPKeys() {
				if v.Owner(key.Addr) == w {
					continue
				}
				compared++
				compare(t, s, v, w, sides, key.Addr, key.Protocol, key.Port)
			}
		}
	}
	t.Logf("%d connections; %d judgements of isolated sides, %d of them allow", compared, isolated, allowed)
}

func (d dice) question(a netip.Addr) (identity.Protocol, uint16) {
	switch d.IntN(8) {
	case 0:
		if a.Is6() {
			return identity.ICMPv6, []uint16{0, 8, 128, 255}[d.IntN(4)]
		}
		return identity.ICMP, []uint16{0, 8, 128, 255}[d.IntN(4)]
	case 1:
		return identity.Protocol(47), 0 // GRE
	}
	p := []identity.Protocol{identity.TCP, identity.UDP, identity.SCTP}[d.IntN(3)]
	if d.chance(20) {
		return p, uint16(d.IntN(65536))
	}
	return p, portNumbers[d.IntN(len(portNumbers))]
}

func compare(t *testing.T, s *Set, v *identity.View, w *identity.Workload, sides Sides, a netip.Addr, p identity.Protocol, port uint16) (isolated, allowed int) {
	t.Helper()
	own := identity.Peer{Kind: identity.Pod, Addr: w.Addrs[0], Workload: w}
	other := v.Peer(a)
	out := s.Evaluate(v, Connection{Client: own, Server: other, Protocol: p, Port: port}).Egress
	in := s.Evaluate(v, Connection{Client: other, Server: own, Protocol: p, Port: port}).Ingress
	if got := allows(sides.Egress, a, p, port); got != (out.Verdict == Allow) || out.Isolated && !sides.Egress.Isolated {
		t.Errorf("egress %s/%s to %s (%s) %s/%d: entries allow: %v; evaluate: %s: %s\n%s", w.Namespace, w.Name, other, a, p, port, got, out.Verdict, out.Reason, dump(sides.Egress))
	}
	if got := allows(sides.Ingress, a, p, port); got != (in.Verdict == Allow) || in.Isolated && !sides.Ingress.Isolated {
		t.Errorf("ingress %s/%s from %s (%s) %s/%d: entries allow: %v; evaluate: %s: %s\n%s", w.Namespace, w.Name, other, a, p, port, got, in.Verdict, in.Reason, dump(sides.Ingress))
	}
	for _, side := range []SideDecision{out, in} {
		if side.Isolated {
			isolated++
			if side.Verdict == Allow {
				allowed++
			}
		}
	}
	return isolated, allowed
}

func dump(s Side) string {
	out := ""
	for _, list := range []struct {
		what    string
		entries []Entry
	}{{"  ", s.Entries}, {"  deny ", s.Denied}} {
		for _, e := range list.entries {
			protocol := e.Protocol.String()
			if e.EndProtocol != 0 {
				protocol = fmt.Sprintf("%d-%d", e.Protocol, e.EndProtocol)
			}
			out += fmt.Sprintf("%s%s %s %d-%d  %s\n", list.what, e.Peer, protocol, e.Port, e.EndPort, e.Rule)
		}
	}
	return out
}

// wellFormed holds a side to what Side and Entry promise.
func wellFormed(t *testing.T, s Side) {
	t.Helper()
	wellFormedList(t, s.Entries)
	wellFormedList(t, s.Denied)
	if !s.Isolated && len(s.Entries) > 0 {
		t.Errorf("an open side lists %d entries", len(s.Entries))
	}
	for _, e := range s.Denied {
		if s.Isolated && len(s.Names) == 0 && !slices.ContainsFunc(s.Entries, func(o Entry) bool { return overlap(o, e) }) {
			t.Errorf("denied %+v, which nothing allows", e)
		}
	}
}

func wellFormedList(t *testing.T, list []Entry) {
	t.Helper()
	for i, e := range list {
		if e.Peer != e.Peer.Masked() || e.Peer.Addr().Is4In6() || e.Rule == "" ||
			(e.Protocol == identity.AnyProtocol || e.EndProtocol != 0) && (e.Port != 0 || e.EndPort != 0) || e.Port > e.EndPort ||
			e.EndProtocol != 0 && e.EndProtocol <= e.Protocol {
			t.Errorf("entry %+v is malformed", e)
		}
		if i > 0 && compareEntries(list[i-1], e) >= 0 {
			t.Errorf("entries out of order: %+v, %+v", list[i-1], e)
		}
		for _, o := range list[:i] {
			if overlap(o, e) && !o.Exact() && !e.Exact() {
				t.Errorf("entries overlap: %+v, %+v", o, e)
			}
		}
	}
}

func overlap(a, b Entry) bool {
	if !a.Peer.Overlaps(b.Peer) {
		return false
	}
	al, ah := protocolsOf(a)
	bl, bh := protocolsOf(b)
	if al > bh || bl > ah {
		return false
	}
	return al != ah || bl != bh || a.EndPort == 0 && a.Port == 0 && !a.Protocol.HasPorts() && !a.Protocol.IsICMP() || a.Port <= b.EndPort && b.Port <= a.EndPort
}

func protocolsOf(e Entry) (low, high identity.Protocol) {
	switch {
	case e.EndProtocol != 0:
		return e.Protocol, e.EndProtocol
	case e.Protocol == identity.AnyProtocol:
		return 0, 255
	}
	return e.Protocol, e.Protocol
}
