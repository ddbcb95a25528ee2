package policy

import (
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// cpuTime is what the process has used, user and system: on a shared machine it repeats, and wall time
// does not.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// crowd is a cluster in which a workload's ingress selects n peers, and a Service's egress too.
func crowd(b *testing.B, n int) (*identity.Index, *Set, func(i int) identity.Workload) {
	b.Helper()
	peer := func(i int) identity.Workload {
		return identity.Workload{
			ID: fmt.Sprintf("w%06d", i), Namespace: "a", Name: fmt.Sprintf("pod%d", i), Labels: identity.Labels{"app": "client"},
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(1 + i>>16), byte(i >> 8), byte(i)})}, Source: identity.SourceGossip,
		}
	}
	ix := identity.NewIndex("n1")
	for i := range n {
		ix.Upsert(peer(i))
	}
	me := peer(1 << 20)
	me.ID, me.Labels = "me", identity.Labels{"app": "server"}
	ix.Upsert(me)
	s, err := NewSet(parsed(b, `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: a}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 80}, {port: 443}]}]
  egress: [{to: [{podSelector: {matchLabels: {app: nobody}}}]}]
`)...)
	if err != nil {
		b.Fatal(err)
	}
	return ix, s, peer
}

// BenchmarkPeerComes: one of n peers of a side goes or comes: a new view, and the side's entries.
func BenchmarkPeerComes(b *testing.B) {
	for _, n := range []int{1, 100, 1000, 10_000} {
		for _, how := range []string{"follow", "anew"} {
			b.Run(fmt.Sprintf("peers=%d/%s", n, how), func(b *testing.B) {
				ix, s, peer := crowd(b, n)
				w, c := peer(n/2), &Compiler{}
				c.Sides(s, ix.View(), ix.View().Workload("me"))
				b.ReportAllocs()
				begin := cpuTime()
				for i := 0; b.Loop(); i++ {
					if i%2 == 0 {
						ix.Withdraw(w.ID, identity.SourceGossip)
					} else {
						ix.Upsert(w)
					}
					v := ix.View()
					me := v.Workload("me")
					if how == "anew" {
						s.Entries(v, me)
					} else if _, changed := c.Sides(s, v, me); !changed {
						b.Fatal("nothing changed")
					}
				}
				b.ReportMetric(float64((cpuTime()-begin).Microseconds())/float64(b.N), "cpu-µs/op")
			})
		}
	}
}
