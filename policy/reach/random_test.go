package reach

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

func seed(t *testing.T) uint64 {
	s := uint64(time.Now().UnixNano())
	if text := os.Getenv("BULKHEAD_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		s = n
	}
	t.Logf("BULKHEAD_SEED=%d", s)
	return s
}

type dice struct{ *rand.Rand }

func pick[T any](d dice, list []T) T { return list[d.IntN(len(list))] }

func (d dice) view() *identity.View {
	ix := identity.NewIndex("")
	ix.SetBuiltIns(true, false)
	ix.SetNodes(map[string]identity.NodeInfo{
		"n1": {Labels: identity.Labels{"zone": "a"}, Addrs: []netip.Addr{netip.MustParseAddr("172.18.0.1"), netip.MustParseAddr("fd00:18::1")}},
		"n2": {Labels: identity.Labels{"zone": "b"}, Addrs: []netip.Addr{netip.MustParseAddr("172.18.0.2")}},
	})
	ix.SetServices([]identity.KubeService{{Namespace: "ns0", Name: "svc", Selector: identity.Labels{"app": "a"},
		Addrs: []netip.Addr{netip.MustParseAddr("10.96.0.1")}, Ports: []identity.ServicePort{{Port: 80, Target: 8080, Protocol: identity.TCP}}}})
	for i := range 14 {
		ns := fmt.Sprintf("ns%d", d.IntN(2))
		w := identity.Workload{
			ID: fmt.Sprint("w", i), Namespace: ns, Name: fmt.Sprint("p", i), Node: pick(d, []string{"n1", "n2"}),
			Labels:          identity.Labels{"app": pick(d, []string{"a", "b", "c"}), "noise": fmt.Sprint(i)},
			NamespaceLabels: identity.Labels{"team": ns},
			Addrs:           []netip.Addr{netip.AddrFrom4([4]byte{10, 244, byte(d.IntN(2)), byte(i + 1)})},
			HostNetwork:     d.IntN(10) == 0, Source: identity.SourceInventory,
		}
		if d.IntN(2) == 0 {
			w.Addrs = append(w.Addrs, netip.MustParseAddr(fmt.Sprintf("fd00:244::%d", i+1)))
		}
		if d.IntN(3) == 0 {
			w.Labels["tier"] = "x"
		}
		if d.IntN(2) == 0 {
			w.Ports = []identity.ContainerPort{{Name: "http", Protocol: identity.TCP, Port: pick(d, []uint16{80, 8080})}}
		}
		ix.Upsert(w)
	}
	return ix.View()
}

func (d dice) selector() *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	switch d.IntN(4) {
	case 0:
	case 1:
		s.MatchLabels = map[string]string{"app": pick(d, []string{"a", "b", "c"})}
	case 2:
		s.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "tier", Operator: metav1.LabelSelectorOpDoesNotExist}}
	case 3:
		s.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"a"}}}
	}
	return s
}

func (d dice) peer(dir policy.Direction) policy.Peer {
	switch d.IntN(9) {
	case 0, 1:
		return policy.Peer{PodSelector: d.selector()}
	case 2:
		return policy.Peer{NamespaceSelector: &metav1.LabelSelector{}}
	case 3:
		return policy.Peer{PodSelector: d.selector(), NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "ns1"}}}
	case 4:
		return policy.Peer{IPBlock: &networkingv1.IPBlock{CIDR: "10.244.0.0/16", Except: []string{"10.244.1.0/24"}}}
	case 5:
		return policy.Peer{IPBlock: &networkingv1.IPBlock{CIDR: pick(d, []string{"0.0.0.0/0", "192.0.2.0/24", "192.0.2.128/25", "fd00:244::/64", "::/0", "172.18.0.0/16"})}}
	case 6:
		return policy.Peer{Network: pick(d, []string{"world", "cluster", "node"})}
	case 7:
		return policy.Peer{Service: &policy.ServiceRef{Namespace: "ns0", Name: "svc"}}
	}
	return policy.Peer{IPBlock: &networkingv1.IPBlock{CIDR: "10.244.0.0/24"}}
}

func (d dice) port() policy.Port {
	switch d.IntN(5) {
	case 0:
		return policy.PortName(identity.TCP, "http")
	case 1:
		return policy.Port{Protocol: pick(d, []identity.Protocol{identity.UDP, identity.SCTP, identity.ICMP, identity.ICMPv6})}
	case 2:
		p, end := policy.PortNumber(identity.TCP, 8000), int32(8100)
		p.EndPort = &end
		return p
	}
	return policy.PortNumber(pick(d, []identity.Protocol{identity.TCP, identity.UDP}), pick(d, []uint16{80, 8080, 53}))
}

func (d dice) set(t *testing.T) *policy.Set {
	var list []policy.Policy
	for i := range d.IntN(6) {
		p := policy.Policy{Kind: policy.KindPolicy, Namespace: fmt.Sprintf("ns%d", d.IntN(2)), Name: fmt.Sprint("p", i)}
		p.Spec.PodSelector = *d.selector()
		p.Spec.Priority = pick(d, []int32{0, 0, 5})
		for range d.IntN(3) {
			for _, dir := range []policy.Direction{policy.Ingress, policy.Egress} {
				r := policy.Rule{Action: pick(d, []policy.Action{policy.ActionAllow, policy.ActionAllow, policy.ActionDeny})}
				for range d.IntN(3) {
					r.Peers = append(r.Peers, d.peer(dir))
				}
				for range d.IntN(3) {
					r.Ports = append(r.Ports, d.port())
				}
				if dir == policy.Ingress {
					p.Spec.Ingress = append(p.Spec.Ingress, r)
				} else if d.IntN(2) == 0 {
					p.Spec.Egress = append(p.Spec.Egress, r)
				}
			}
		}
		list = append(list, p)
	}
	s, err := policy.NewSet(list...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRegionsAgreeWithEvaluate holds what classes say against the evaluator for every pair of workloads
// and random ports: that grouping loses nothing, and that a region is what the evaluator says.
func TestRegionsAgreeWithEvaluate(t *testing.T) {
	d := dice{rand.New(rand.NewPCG(seed(t), 0))}
	rounds := 30
	for range rounds {
		view := d.view()
		a, b := d.set(t), d.set(t)
		v := newVocabulary(view, a, b)
		df := &differ{view: view, sets: [2]*policy.Set{a, b}, workloads: v.workloads(), others: v.others()}
		of := map[string]*class{}
		for _, c := range df.workloads {
			df.compile(c)
			for _, w := range c.members {
				of[w.ID] = c
			}
		}
		ends := []netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("192.0.2.200"), netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("2001:db8::9"), netip.MustParseAddr("10.244.1.250")}
		for range 300 {
			p := pick(d, []identity.Protocol{identity.TCP, identity.UDP, identity.SCTP, identity.ICMP, identity.ICMPv6, 47})
			port := pick(d, []uint16{53, 80, 8080, 8050, 8, 200, 22})
			if !p.HasPorts() && !p.IsICMP() {
				port = 0
			}
			w := pick(d, view.Workloads)
			o := pick(d, view.Workloads)
			if of[w.ID] == nil || o == w {
				continue
			}
			for si, set := range df.sets {
				c := of[w.ID]
				if oc := of[o.ID]; oc != nil {
					wa, oa := perFamily(w.Addrs), perFamily(o.Addrs)
					for f := range families {
						if !wa[f].IsValid() || !oa[f].IsValid() {
							continue
						}
						client, server := c.members[0], oc.members[0]
						if c == oc {
							server = c.members[1]
						}
						got := between(c, oc, si, perFamily(client.Addrs)[f], perFamily(server.Addrs)[f]).contains(at(p, port))
						q := policy.Connection{Client: podAt(w, wa[f]), Server: podAt(o, oa[f]), Protocol: p, Port: port}
						want := set.Evaluate(view, q)
						if p == identity.ICMPv6 && f == 0 || p == identity.ICMP && f == 1 {
							continue
						}
						if got != (want.Verdict == policy.Allow) {
							t.Fatalf("%s → %s %s/%d in set %d: class says %t, evaluator %s: %v", w.ID, o.ID, p, port, si, got, want.Verdict, want.Reasons())
						}
					}
				}
				x := pick(d, ends)
				if p == identity.ICMPv6 && x.Is4() || p == identity.ICMP && x.Is6() {
					continue
				}
				var stands netip.Addr
				for _, o := range df.others {
					for _, a := range o.addrs {
						if o.node == "" && o.name != DNS && v.innermost(a) == v.innermost(x) {
							stands = a
						}
					}
				}
				if !stands.IsValid() {
					t.Fatalf("no cell for %s", x)
				}
				got := c.sides[si].ingress.at(stands).contains(at(p, port))
				want := set.Evaluate(view, policy.Connection{Client: view.Peer(x), Server: podAt(w, w.Addrs[0]), Protocol: p, Port: port})
				if got != (want.Ingress.Verdict == policy.Allow) {
					t.Fatalf("%s → %s %s/%d in set %d: class says %t, evaluator %s: %v", x, w.ID, p, port, si, got, want.Verdict, want.Reasons())
				}
			}
		}
	}
}

// TestRegions holds region arithmetic against membership.
func TestRegions(t *testing.T) {
	d := dice{rand.New(rand.NewPCG(seed(t), 1))}
	random := func() region {
		var spans []span
		for range d.IntN(6) {
			low := point(d.IntN(40))
			spans = append(spans, span{low, low + point(d.IntN(8))})
		}
		return union(spans)
	}
	for range 2000 {
		a, b := random(), random()
		and, without := a.and(b), a.without(b)
		for x := point(0); x < 60; x++ {
			if and.contains(x) != (a.contains(x) && b.contains(x)) || without.contains(x) != (a.contains(x) && !b.contains(x)) {
				t.Fatalf("a %v b %v at %d: and %v without %v", a, b, x, and, without)
			}
		}
	}
}

func TestRegionNames(t *testing.T) {
	tcp := func(low, high uint16) span { return span{at(identity.TCP, low), at(identity.TCP, high)} }
	for _, row := range []struct {
		r    region
		want string
	}{
		{nil, "nothing"},
		{everything, "everything"},
		{everything.without(icmp6), "everything"},
		{region{tcp(80, 80)}, "TCP/80"},
		{region{tcp(80, 80), tcp(8000, 8100)}, "TCP/80, TCP/8000-8100"},
		{region{tcp(0, 65535)}, "TCP (every port)"},
		{everything.without(region{tcp(80, 80)}), "everything but TCP/80"},
		{everything.without(region{tcp(80, 80)}).without(icmp4).without(icmp6), "everything but TCP/80, ICMP, ICMPv6"},
		{icmp4, "ICMP"},
		{region{{at(identity.ICMP, 8), at(identity.ICMP, 8)}}, "ICMP/8"},
		{region{{at(47, 0), at(47, 65535)}}, "protocol 47"},
	} {
		if got := row.r.String(); got != row.want {
			t.Errorf("%v: got %q, want %q", row.r, got, row.want)
		}
	}
}
