package attack

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/alert"
)

// TestForgedRecords: root in a container writes a rule of its own that logs to our group with our
// prefixes, to have connections learned that never were. None is believed, and an alert tells of it;
// what the workload really does is learned all the same.
func TestForgedRecords(t *testing.T) {
	y := newYard(t, "learn")
	server := y.pod("server", 2, map[string]string{"app": "server"})
	forger := y.pod("forger", 3, map[string]string{"app": "forger"})
	framed := y.pod("framed", 4, map[string]string{"app": "framed"})
	must(t, forger.nft(`
table ip evil {
	chain out {
		type filter hook output priority -400; policy accept;
		ip daddr 10.77.0.4 udp dport 666 log prefix "bh out allow" group 4711 snaplen 128
		ip daddr 10.77.0.4 udp dport 666 log prefix "bh in allow" group 4711 snaplen 128 drop
	}
}`))
	send := func(to *plot, port uint16) error {
		c, err := dial(forger.path(), "udp", netip.AddrPortFrom(to.v4, port), 0)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("hello"))
		return err
	}
	for range 10 {
		_ = send(framed, 666) // EPERM: the forger's own drop
	}
	must(t, send(server, 7777))
	if !eventually(func() bool { return y.knows("shop/forger", "shop/server", 7777) }) {
		t.Error("the honest edge was not learned")
	}
	if !eventually(func() bool {
		status, err := y.client.Status(t.Context())
		return err == nil && status.Counters.Forged >= 20
	}) {
		status, _ := y.client.Status(t.Context())
		t.Errorf("forged records are not counted: %+v", status.Counters)
	}
	for _, e := range y.edges() {
		if e.Port == 666 {
			t.Errorf("a forged record was learned: %+v", e)
		}
	}
	if !eventually(func() bool {
		list, _ := y.client.Alerts(t.Context(), string(alert.Tamper), 100)
		for _, raw := range list {
			var a alert.Alert
			if json.Unmarshal(raw, &a) == nil && strings.Contains(a.Reason, "forged") {
				return true
			}
		}
		return false
	}) {
		t.Error("no alert tells of forged records")
	}
}
