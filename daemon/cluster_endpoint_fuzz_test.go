package daemon

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// FuzzEndpoint: what another node says of a workload is refused, or a workload with addresses of its own
// that reads back the same.
func FuzzEndpoint(f *testing.F) {
	good, err := encodeEndpoint(&identity.Workload{Namespace: "shop", Name: "web-1", Service: identity.Service{Namespace: "shop", Name: "web"},
		Labels: identity.Labels{"app": "web"}, Addrs: []netip.Addr{netip.MustParseAddr("10.4.1.7"), netip.MustParseAddr("fd00::7")},
		Ports: []identity.ContainerPort{{Name: "http", Protocol: identity.TCP, Port: 80}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("web-1", good)
	f.Add("a/b", good)
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		w, err := decodeEndpoint("other", key, value)
		if err != nil {
			return
		}
		for _, a := range w.Addrs {
			if !shared(a) || a != identity.Normal(a) {
				t.Fatalf("address %v", a)
			}
		}
		again, err := encodeEndpoint(&w)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeEndpoint("other", key, again)
		if err != nil || !slices.Equal(back.Addrs, w.Addrs) || back.Service != w.Service {
			t.Fatalf("%+v, %v; was %+v", back, err, w)
		}
	})
}
