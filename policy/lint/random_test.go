package lint_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
	"github.com/bulkhead-firewall/bulkhead/policy/lint"
)

// dice makes random policies of a small world, in which rules often meet.
type dice struct{ *rand.Rand }

func newDice(t testing.TB) dice {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("BULKHEAD_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Logf("BULKHEAD_SEED=%d", seed)
	return dice{rand.New(rand.NewPCG(seed, 0))}
}

func (d dice) one(of ...string) string { return of[d.IntN(len(of))] }

func (d dice) selector() *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	switch d.IntN(6) {
	case 0, 1, 2:
	case 3, 4:
		s.MatchLabels = map[string]string{d.one("app", "tier"): d.one("a", "b")}
	default:
		e := metav1.LabelSelectorRequirement{Key: d.one("app", "tier"), Operator: metav1.LabelSelectorOperator(d.one("In", "NotIn", "Exists", "DoesNotExist"))}
		if e.Operator == metav1.LabelSelectorOpIn || e.Operator == metav1.LabelSelectorOpNotIn {
			e.Values = slices.Compact([]string{d.one("a", "b"), d.one("b", "c")})
		}
		s.MatchExpressions = append(s.MatchExpressions, e)
	}
	return s
}

func (d dice) spaces() *metav1.LabelSelector {
	if d.IntN(2) == 0 {
		return &metav1.LabelSelector{}
	}
	return &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": d.one("one", "two")}}
}

func (d dice) block() *networkingv1.IPBlock {
	b := &networkingv1.IPBlock{CIDR: d.one("203.0.113.0/24", "203.0.113.0/25", "203.0.113.128/25", "203.0.113.64/26")}
	if b.CIDR == "203.0.113.0/24" && d.IntN(2) == 0 {
		b.Except = []string{d.one("203.0.113.0/25", "203.0.113.128/26")}
	}
	return b
}

func (d dice) peer(p *policy.Policy, dir policy.Direction) policy.Peer {
	cluster := p.Spec.Tier != policy.NamespaceTier
	n := d.IntN(4)
	switch {
	case n == 0 && (!cluster || dir == policy.Egress):
		b := d.block()
		if cluster {
			b.Except = nil
		}
		return policy.Peer{IPBlock: b}
	case n == 1 && p.Kind == policy.KindPolicy:
		return policy.Peer{Network: d.one("world", "cluster", "metadata")}
	case n == 2 || cluster:
		return policy.Peer{NamespaceSelector: d.spaces(), PodSelector: d.selector()}
	}
	return policy.Peer{PodSelector: d.selector()}
}

func (d dice) port() policy.Port {
	p := policy.PortNumber([]identity.Protocol{identity.TCP, identity.UDP}[d.IntN(2)], uint16(1+d.IntN(3)))
	if d.IntN(3) == 0 {
		end := p.Port.IntVal + int32(d.IntN(3))
		p.EndPort = &end
	}
	return p
}

func (d dice) rule(p *policy.Policy, dir policy.Direction) policy.Rule {
	r := policy.Rule{}
	if p.Kind != policy.KindNetworkPolicy && d.IntN(2) == 0 {
		r.Action = policy.ActionDeny
	}
	if p.Spec.Tier == policy.AdminTier && d.IntN(3) == 0 {
		r.Action = policy.ActionPass
	}
	for range 1 + d.IntN(2) {
		r.Peers = append(r.Peers, d.peer(p, dir))
	}
	if p.Spec.Tier == policy.NamespaceTier && d.IntN(6) == 0 {
		r.Peers = nil
	}
	for range d.IntN(3) {
		r.Ports = append(r.Ports, d.port())
	}
	return r
}

func (d dice) policy(i int) policy.Policy {
	p := policy.Policy{Kind: d.one(policy.KindPolicy, policy.KindPolicy, policy.KindNetworkPolicy, policy.KindClusterNetworkPolicy), Name: fmt.Sprintf("p%d", i)}
	p.Spec.PodSelector = *d.selector()
	switch p.Kind {
	case policy.KindClusterNetworkPolicy:
		p.Spec.Tier = policy.AdminTier
		if d.IntN(3) == 0 {
			p.Spec.Tier = policy.BaselineTier
		}
		p.Spec.NamespaceSelector, p.Spec.Priority = d.spaces(), int32(d.IntN(3))
	case policy.KindPolicy:
		p.Namespace, p.Spec.Priority = d.one("one", "two"), int32([]int{0, 0, 5, 1000}[d.IntN(4)])
	default:
		p.Namespace = d.one("one", "two")
	}
	if p.Namespace != "" {
		p.Spec.PolicyTypes = []networkingv1.PolicyType{"Ingress", "Egress"} // so that a rule that goes changes no isolation
	}
	for range d.IntN(4) {
		p.Spec.Ingress = append(p.Spec.Ingress, d.rule(&p, policy.Ingress))
	}
	for range d.IntN(4) {
		p.Spec.Egress = append(p.Spec.Egress, d.rule(&p, policy.Egress))
	}
	return p
}

// world has a workload for each set of labels in each namespace.
func world(t testing.TB) *identity.View {
	ix := identity.NewIndex("n1")
	ix.SetBuiltIns(false, false)
	n := 0
	for _, space := range []string{"one", "two"} {
		for _, app := range []string{"", "a", "b"} {
			for _, tier := range []string{"", "a"} {
				n++
				w := identity.Workload{
					ID: fmt.Sprint(n), Namespace: space, Name: fmt.Sprintf("w%d", n), Node: "n2", Labels: identity.Labels{},
					Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(n)})}, Source: identity.SourceInventory,
				}
				if app != "" {
					w.Labels["app"] = app
				}
				if tier != "" {
					w.Labels["tier"] = tier
				}
				ix.Upsert(w)
			}
		}
	}
	return ix.View()
}

// verdicts of every connection between workloads and with some addresses, one letter each.
func verdicts(t testing.TB, v *identity.View, policies []policy.Policy) string {
	t.Helper()
	set, err := policy.NewSet(policies...)
	if err != nil {
		t.Fatal(err)
	}
	var ends []identity.Peer
	for _, w := range v.Workloads {
		ends = append(ends, v.Peer(w.Addrs[0]))
	}
	for _, a := range []string{"203.0.113.1", "203.0.113.70", "203.0.113.130", "203.0.113.200", "169.254.169.254"} {
		ends = append(ends, v.Peer(netip.MustParseAddr(a)))
	}
	var out strings.Builder
	for _, client := range ends {
		for _, server := range ends {
			if client.Workload == nil && server.Workload == nil {
				continue
			}
			for _, port := range []uint16{1, 2, 4} {
				for _, protocol := range []identity.Protocol{identity.TCP, identity.UDP} {
					d := set.Evaluate(v, policy.Connection{Client: client, Server: server, Protocol: protocol, Port: port})
					out.WriteByte("-+"[d.Verdict/policy.Allow])
				}
			}
		}
	}
	return out.String()
}

var rulePath = regexp.MustCompile(`^spec\.(ingress|egress)\[(\d+)\](?:\.(from|to|ports)\[(\d+)\])?$`)

// TestRemoving: what lint calls redundant or shadowed can go, one by one and all together, and no
// verdict changes.
func TestRemoving(t *testing.T) {
	d, v := newDice(t), world(t)
	removed := map[string]int{}
	for round := range 40 {
		var policies []policy.Policy
		for i := range 3 + d.IntN(4) {
			policies = append(policies, d.policy(i))
		}
		set, err := policy.NewSet(policies...)
		if err != nil {
			t.Fatal(err)
		}
		var gone []lint.Finding
		for _, f := range lint.Check(set, nil, lint.Options{}) {
			if f.Check == "redundant" || f.Check == "shadowed" || f.Check == "contradiction" {
				gone = append(gone, f)
			}
		}
		if len(gone) == 0 {
			continue
		}
		want := verdicts(t, v, policies)
		for _, f := range gone {
			removed[f.Check]++
			if got := verdicts(t, v, without(t, policies, f)); got != want {
				t.Fatalf("round %d: without it verdicts change: %s\n%s", round, f, text(policies))
			}
		}
		if got := verdicts(t, v, without(t, policies, gone...)); got != want {
			t.Fatalf("round %d: without all of them verdicts change: %s\n%s", round, lines(gone), text(policies))
		}
	}
	t.Log(removed)
	if removed["redundant"] == 0 || removed["shadowed"] == 0 {
		t.Errorf("the dice never met: %v", removed)
	}
}

// without is the policies without the rules, peers and ports that findings are about.
func without(t *testing.T, policies []policy.Policy, findings ...lint.Finding) []policy.Policy {
	t.Helper()
	type item struct {
		policy, direction string
		rule              int
		list              string
		index             int
	}
	drop := map[item]bool{}
	for _, f := range findings {
		m := rulePath.FindStringSubmatch(f.Path)
		if m == nil {
			t.Fatalf("path %q of %s", f.Path, f)
		}
		rule, _ := strconv.Atoi(m[2])
		index, _ := strconv.Atoi(m[4])
		drop[item{f.Policy, m[1], rule, strings.NewReplacer("from", "peers", "to", "peers").Replace(m[3]), index}] = true
	}
	out := slices.Clone(policies)
	for i := range out {
		p := &out[i]
		keep := func(dir string, rules []policy.Rule) []policy.Rule {
			var left []policy.Rule
			for j, r := range rules {
				if drop[item{p.Key().String(), dir, j, "", 0}] {
					continue
				}
				var peers []policy.Peer
				for k, x := range r.Peers {
					if !drop[item{p.Key().String(), dir, j, "peers", k}] {
						peers = append(peers, x)
					}
				}
				var ports []policy.Port
				for k, x := range r.Ports {
					if !drop[item{p.Key().String(), dir, j, "ports", k}] {
						ports = append(ports, x)
					}
				}
				if len(peers) == 0 && len(r.Peers) > 0 || len(ports) == 0 && len(r.Ports) > 0 {
					t.Fatalf("all items of a list are called redundant: %s %s[%d]", p.Key(), dir, j)
				}
				r.Peers, r.Ports = peers, ports
				left = append(left, r)
			}
			return left
		}
		p.Spec.Ingress, p.Spec.Egress = keep("ingress", p.Spec.Ingress), keep("egress", p.Spec.Egress)
	}
	return out
}

func text(policies []policy.Policy) string {
	var out strings.Builder
	for _, p := range policies {
		data, err := policy.Marshal(p)
		if err != nil {
			fmt.Fprintf(&out, "%v\n%+v\n", err, p)
			continue
		}
		out.Write(data)
		out.WriteString("---\n")
	}
	return out.String()
}
