package lab

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// TestNATRules shows the whole stand-in for kube-proxy as nft text; the kernel must take it.
func TestNATRules(t *testing.T) {
	backends := func(s ...string) (out []netip.AddrPort) {
		for _, b := range s {
			out = append(out, netip.MustParseAddrPort(b))
		}
		return out
	}
	got := natRules([]VIP{
		{Addr: netip.MustParseAddr("10.96.0.7"), Protocol: identity.TCP, Port: 80, Backends: backends("10.244.1.2:8080", "10.244.1.3:8081")},
		{Addr: netip.MustParseAddr("10.96.0.8"), Protocol: identity.SCTP, Port: 80},
		{Addr: netip.MustParseAddr("fd00:96::7"), Protocol: identity.UDP, Port: 53, Backends: backends("[fd00:244::2]:53")},
	}, addrs("10.244.1.2 fd00:244::2"))
	const file = "testdata/services.nft"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
	needRoot(t)
	ns := "bhlabtest" + strings.ToLower(t.Name())
	if err := makeNamespace(ns, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeNamespace(ns); err != nil {
			t.Error(err)
		}
	})
	if err := nft(nsPath(ns), got); err != nil {
		t.Error(err)
	}
}
