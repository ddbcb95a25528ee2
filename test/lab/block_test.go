package lab

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

func addrs(s string) []netip.Addr {
	var out []netip.Addr
	for _, f := range strings.Fields(s) {
		out = append(out, netip.MustParseAddr(f))
	}
	return out
}

// TestCover holds that a node's block is the smallest one that leaves room for a gateway.
func TestCover(t *testing.T) {
	for _, c := range []struct{ pods, taken, block, gateway string }{
		{"10.244.1.5", "", "10.244.1.0/24", "10.244.1.1"},
		{"10.244.1.5", "10.244.1.1 10.244.1.2", "10.244.1.0/24", "10.244.1.3"},
		{"10.244.1.1", "10.244.1.1", "10.244.1.0/24", "10.244.1.2"},
		{"10.244.1.5 10.244.2.5", "", "10.244.0.0/22", "10.244.0.1"},
		{"10.9.0.0", "", "10.8.0.0/15", "10.8.0.1"},   // the first address of a block is no host
		{"10.9.0.255", "", "10.9.0.0/23", "10.9.0.1"}, // nor is the last
		{"10.0.0.1 10.255.0.1", "10.0.0.1", "10.0.0.0/8", "10.0.0.2"},
		{"fd00:244::5 fd00:244::9", "", "fd00:244::/64", "fd00:244::1"},
		{"fd00:244::5 fd00:244:0:1::9", "", "fd00:244::/63", "fd00:244::1"},
	} {
		taken := map[netip.Addr]bool{}
		for _, a := range addrs(c.taken) {
			taken[a] = true
		}
		block, gateway, err := cover(addrs(c.pods), func(a netip.Addr) bool { return taken[a] })
		if err != nil || block.String() != c.block || gateway.String() != c.gateway {
			t.Errorf("cover(%s) with %q taken: %s %s %v, want %s %s", c.pods, c.taken, block, gateway, err, c.block, c.gateway)
		}
	}
}

// TestCoverRandom holds cover's promises on addresses from anywhere.
func TestCoverRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var pods []netip.Addr
		used := map[netip.Addr]bool{}
		base := r.Uint32()
		for range 1 + r.IntN(20) {
			x := base&0xff000000 | r.Uint32()&(1<<(1+r.IntN(24))-1)
			a := netip.AddrFrom4([4]byte{byte(x >> 24), byte(x >> 16), byte(x >> 8), byte(x)})
			pods, used[a] = append(pods, a), true
		}
		block, gateway, err := cover(pods, func(a netip.Addr) bool { return used[a] })
		if err != nil {
			continue // 0.0.0.0 and 255.255.255.255 fit nowhere
		}
		if used[gateway] || !block.Contains(gateway) || !hosts(block, append(pods, gateway)) || block != block.Masked() {
			t.Fatalf("cover(%v) = %s, gateway %s", pods, block, gateway)
		}
		for _, a := range pods {
			if !block.Contains(a) {
				t.Fatalf("cover(%v) = %s without %s", pods, block, a)
			}
		}
	}
}

func TestFree(t *testing.T) {
	used := map[netip.Addr]bool{}
	for _, a := range addrs("10.200.0.7 10.200.1.1 10.200.3.1 fd00:200::9") {
		used[a] = true
	}
	for start, want := range map[string]string{"10.200.0.0/24": "10.200.2.0/24", "fd00:200::/64": "fd00:200:0:1::/64"} {
		got, ok := free(netip.MustParsePrefix(start), 10, used)
		if !ok || got.String() != want {
			t.Errorf("free from %s: %s %v, want %s", start, got, ok, want)
		}
	}
	if got, ok := free(netip.MustParsePrefix("10.200.0.0/24"), 2, used); ok {
		t.Errorf("free in two tries: %s", got)
	}
}
