package flow

import (
	"testing"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// TestReviews: which edges a person should look at, and the reason given.
func TestReviews(t *testing.T) {
	w := newTown(t)
	web, db := peerOf(w.pod("shop", "web", 1)), peerOf(w.pod("shop", "db", 1))
	w.call(web, db, identity.TCP, 5432)
	w.call(web, worldPeer("198.51.100.7"), identity.TCP, 443)
	w.call(web, worldPeer("169.254.169.254"), identity.TCP, 80)
	w.call(web, worldPeer("fe80::1"), identity.TCP, 80)
	for port := uint16(1); port <= 40; port++ {
		w.call(peerOf(w.pod("shop", "evil", 1)), db, identity.TCP, port)
	}
	got := map[string]string{}
	for k, reason := range Reviews(replay(t, w.log, Limits{}).Edges()) {
		got[k.String()] = reason
	}
	want := map[string]string{
		"shop/web → 169.254.169.254 TCP/80": "metadata address of a cloud: it hands out credentials to whoever asks",
		"shop/web → fe80::1 TCP/80":         "link-local address that no resolver or node of ours has",
		"shop/evil → shop/db TCP/1":         "scan-like: shop/evil called 30 or more ports of shop/db",
		"shop/web → shop/db TCP/5432":       "",
	}
	for k, reason := range want {
		if got[k] != reason {
			t.Errorf("%s: %q, want %q", k, got[k], reason)
		}
	}
	if len(got) != 42 {
		t.Errorf("%d edges to review, want 40 of the scan and 2", len(got))
	}
}
