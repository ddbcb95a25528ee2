package alert

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// TestNamedServer: an address of the world is told with the name that the client looked up.
func TestNamedServer(t *testing.T) {
	web := &identity.Workload{ID: "w", Namespace: "shop", Name: "web-1", Service: identity.Service{Namespace: "shop", Name: "web"}}
	server := netip.MustParseAddr("203.0.113.7")
	c := Case{
		Record: flow.Record{Event: flow.Denied, Direction: policy.Egress, Server: server, Protocol: identity.TCP, Port: 443},
		Client: identity.Peer{Kind: identity.Pod, Workload: web}, Server: identity.Peer{Kind: identity.World, Addr: server},
		Names: []string{"api.example.com", "b.example.com"}, ClientMode: policy.Enforce,
		Decision: policy.Decision{Egress: policy.SideDecision{Isolated: true, Policies: []string{"shop/web"}, Reason: "no rule allows it"}},
	}
	a := denied(&c)
	if a.Server.Name != "api.example.com" || !strings.Contains(a.Reason, "203.0.113.7 (api.example.com) on TCP/443") {
		t.Errorf("server %+v: %s", a.Server, a.Reason)
	}
	c.Names = nil
	if a := denied(&c); a.Server.Name != "" || strings.Contains(a.Reason, "(") {
		t.Errorf("without a name: %s", a.Reason)
	}
}
