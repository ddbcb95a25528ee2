package identity

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
)

// What a workload of another node costs: 100,000 of 1,000 nodes, in 2,000 services.
func BenchmarkMemory(b *testing.B) {
	const nodes, each = 1000, 100
	for range b.N {
		start := heap()
		ix := NewIndex("me")
		for id := range nodes * each {
			service := fmt.Sprintf("service-%d", id%2000)
			ix.Upsert(Workload{
				ID: fmt.Sprintf("node-%04d/%064x", id/each, id), Namespace: "shop", Name: fmt.Sprintf("%s-6f8d9c5b7-%05x", service, id),
				Node: fmt.Sprintf("node-%04d", id/each), Service: Service{Namespace: "shop", Name: service}, Source: SourceGossip,
				Labels:          Labels{"app.kubernetes.io/name": service, "app.kubernetes.io/part-of": "shop", "pod-template-hash": "6f8d9c5b7"},
				NamespaceLabels: Labels{"kubernetes.io/metadata.name": "shop", "team": "checkout"},
				Addrs:           []netip.Addr{netip.AddrFrom4([4]byte{10, byte(id >> 16), byte(id >> 8), byte(id)})},
				Ports:           []ContainerPort{{Name: "http", Protocol: TCP, Port: 8080}, {Name: "metrics", Protocol: TCP, Port: 9090}},
			})
		}
		ix.View()
		b.ReportMetric(float64(heap()-start)/nodes/each, "B/workload")
		runtime.KeepAlive(ix)
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
