package policy

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// town of n workloads in ten namespaces, with a Service for each ten of them, and one policy for
// each of p services: ingress from three services, egress to three and to a block.
func bigTown(b *testing.B, n, p int) (*Set, *identity.View) {
	b.Helper()
	s, ix := bigTownIndex(b, n, p)
	return s, ix.View()
}

func bigTownIndex(b *testing.B, n, p int) (*Set, *identity.Index) {
	b.Helper()
	ix := identity.NewIndex("n1")
	services := n / 10
	var vips []identity.KubeService
	for i := range n {
		app := fmt.Sprintf("app%d", i%services)
		ix.Upsert(identity.Workload{
			ID: fmt.Sprintf("w%05d", i), Namespace: fmt.Sprintf("ns%d", i%services%10), Name: fmt.Sprintf("pod%d", i),
			Labels: identity.Labels{"app": app}, Ports: []identity.ContainerPort{{Name: "http", Protocol: identity.TCP, Port: 8080}},
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})}, Source: identity.SourceGossip,
		})
	}
	for i := range services {
		vips = append(vips, identity.KubeService{
			Namespace: fmt.Sprintf("ns%d", i%10), Name: fmt.Sprintf("app%d", i), Selector: identity.Labels{"app": fmt.Sprintf("app%d", i)},
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})}, Ports: []identity.ServicePort{{Port: 80, Target: 8080}},
		})
	}
	ix.SetServices(vips)
	var list []Policy
	for i := range p {
		peers := ""
		for k := 1; k <= 3; k++ {
			peers += fmt.Sprintf("{podSelector: {matchLabels: {app: app%d}}, namespaceSelector: {}}, ", (i+k)%services)
		}
		text := fmt.Sprintf("apiVersion: bulkhead.dev/v1alpha1\nkind: Policy\nmetadata: {name: p%d, namespace: ns%d}\nspec: {podSelector: {matchLabels: {app: app%d}}, ingress: [{from: [%s], ports: [{port: http}]}], egress: [{to: [%s], ports: [{port: 8080}]}, {to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}], ports: [{port: 443}]}]}\n",
			i, i%10, i%services, peers, peers)
		list = append(list, parsed(b, text)...)
	}
	s, err := NewSet(list...)
	if err != nil {
		b.Fatal(err)
	}
	return s, ix
}

func BenchmarkEntries(b *testing.B) {
	for _, c := range []struct{ workloads, policies int }{{100, 10}, {1000, 100}, {10000, 1000}} {
		s, v := bigTown(b, c.workloads, c.policies)
		b.Run(fmt.Sprintf("workloads=%d/policies=%d", c.workloads, c.policies), func(b *testing.B) {
			b.ReportAllocs()
			entries := 0
			for i := 0; b.Loop(); i++ {
				sides := s.Entries(v, v.Workloads[i%len(v.Workloads)])
				entries += len(sides.Egress.Entries) + len(sides.Ingress.Entries)
			}
			b.ReportMetric(float64(entries)/float64(b.N), "entries/op")
		})
	}
}

func BenchmarkEvaluate(b *testing.B) {
	s, v := bigTown(b, 1000, 100)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c, w := v.Workloads[i%len(v.Workloads)], v.Workloads[(i*7+1)%len(v.Workloads)]
		s.Evaluate(v, Connection{
			Client: identity.Peer{Kind: identity.Pod, Workload: c, Addr: c.Addrs[0]}, Server: identity.Peer{Kind: identity.Pod, Workload: w, Addr: w.Addrs[0]},
			Protocol: identity.TCP, Port: 8080,
		})
	}
}

func BenchmarkParse(b *testing.B) {
	var text []byte
	for i := range 100 {
		text = append(text, netpol(KindNetworkPolicy, fmt.Sprintf("p%d", i), apiToDB)...)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := Parse("x.yaml", text); err != nil {
			b.Fatal(err)
		}
	}
}
