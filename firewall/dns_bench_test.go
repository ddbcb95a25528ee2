package firewall

import (
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// BenchmarkAnswer is a question over UDP from a workload to a resolver on the same machine, and back:
// without names in policy, with nobody to read, read with nothing new in it, and with an address that
// is new each time.
func BenchmarkAnswer(b *testing.B) {
	for _, row := range []struct {
		name          string
		names, reader bool
		fresh         bool
	}{{"unread", false, false, false}, {"bypass", true, false, false}, {"known", true, true, false}, {"new", true, true, true}} {
		b.Run(row.name, func(b *testing.B) {
			var names []policy.NameEntry
			if row.names {
				names = web
			}
			l := newDNSLab(b, true, names...)
			i := 0
			l.zone.serve(func(name string, _ dnsmessage.Type) []dnsmessage.Resource {
				if row.fresh {
					i++
				}
				return []dnsmessage.Resource{recordA(name, 300, netip.AddrFrom4([4]byte{10, 78, byte(i >> 8), byte(i)}))}
			})
			l.apply(policy.Enforce)
			if row.reader {
				l.read()
			}
			c := l.dialDNS("udp", false)
			defer c.Close()
			for range 20 {
				ask(b, c, "www.example.com", dnsmessage.TypeA)
			}
			b.ResetTimer()
			for range b.N {
				ask(b, c, "www.example.com", dnsmessage.TypeA)
			}
			b.StopTimer()
			if row.reader && l.answers.Stats().Messages < uint64(b.N)*9/10 {
				b.Fatalf("%+v of %d", l.answers.Stats(), b.N)
			}
		})
	}
}
