package daemon

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/gossip"
	"github.com/bulkhead-firewall/bulkhead/identity"
)

// claimantNode is a member that says what a test wants of its workloads.
type claimantNode struct {
	*gossip.Cluster
	t    *testing.T
	name string
}

func joinTest(t *testing.T, name string, blocks ...netip.Prefix) gossip.Config {
	t.Helper()
	return gossip.Config{Node: name, Label: "test", Key: keyNumber(len(name) + int(name[0])), Keyring: [][]byte{bytes.Repeat([]byte{1}, 32)},
		Bind: netip.MustParseAddrPort("127.0.0.1:0"), Log: slog.New(slog.DiscardHandler), Blocks: blocks}
}

func (n claimantNode) says(pod, app string, addrs ...string) {
	n.t.Helper()
	e := gossip.Entry{Key: pod}
	if len(addrs) > 0 {
		w := identity.Workload{Namespace: "shop", Name: pod, Labels: identity.Labels{"app": app}, Service: identity.Service{Namespace: "shop", Name: app}}
		for _, a := range addrs {
			w.Addrs = append(w.Addrs, netip.MustParseAddr(a))
		}
		value, err := encodeEndpoint(&w)
		if err != nil {
			n.t.Fatal(err)
		}
		e.Value = value
	}
	if _, err := n.State.Write(gossip.Endpoints, e); err != nil {
		n.t.Fatal(err)
	}
}

// A member that lies about whose addresses it has gets nobody's identity, takes nobody's away where
// ranges are declared, and is told of.
func TestClaimsOfALiar(t *testing.T) {
	block := netip.MustParsePrefix("10.4.1.0/24")
	d := New(Config{Node: "me", Cluster: &ClusterConfig{Name: "test", Grace: time.Hour}}, slog.New(slog.DiscardHandler))
	d.alerts = alert.NewDispatcher(nil, nil, nil) // nothing runs it: what is sent waits
	c := newCluster(d)
	d.cluster = c
	join := func(conf gossip.Config) *gossip.Cluster {
		g, err := gossip.Join(context.Background(), conf)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = g.Close() })
		return g
	}
	c.Cluster = join(joinTest(t, "me"))
	member := func(name string, blocks ...netip.Prefix) claimantNode {
		conf := joinTest(t, name, blocks...)
		conf.Seeds = []string{c.Members()[0].Address.String()}
		return claimantNode{join(conf), t, name}
	}
	honest, liar := member("honest", block), member("liar")

	is := func(addr string) string {
		c.take()
		c.lookAtMembers()
		p := d.index.View().Peer(netip.MustParseAddr(addr))
		if p.Kind != identity.Pod {
			return "nobody"
		}
		return p.Workload.Node + "/" + p.Workload.Name
	}
	becomes := func(addr, want string) {
		t.Helper()
		eventually(t, 20*time.Second, addr+" is "+want, func() error {
			if got := is(addr); got != want {
				return &isError{got}
			}
			return nil
		})
	}
	honest.says("web", "web", "10.4.1.7")
	becomes("10.4.1.7", "honest/web")
	liar.says("admin", "admin", "10.4.1.7", "10.4.9.9") // one of honest's, and a free one
	becomes("10.4.9.9", "liar/admin")
	if got := is("10.4.1.7"); got != "honest/web" {
		t.Errorf("10.4.1.7 is %s", got)
	}
	// Where no range speaks, two that claim it both have it not, until one lets go.
	honest.says("cart", "cart", "10.4.1.8")
	other := member("other")
	other.says("job", "job", "10.4.9.9")
	becomes("10.4.9.9", "nobody")
	liar.says("admin", "admin", "10.4.1.7")
	becomes("10.4.9.9", "other/job")
	eventually(t, 20*time.Second, "people are told", func() error {
		c.lookAtMembers()
		d.mu.Lock()
		defer d.mu.Unlock()
		if text := d.warnings["cluster claims"]; !strings.Contains(text, `10.4.1.7 is in the range 10.4.1.0/24 of node "honest"`) {
			return &isError{text}
		}
		return nil
	})
}

type isError struct{ text string }

func (e *isError) Error() string { return "it is " + e.text }

// What policy cannot tell apart is one identity, whatever the pod is called and where it is.
func TestIdentityText(t *testing.T) {
	w := identity.Workload{Namespace: "shop", Name: "web-1", Labels: identity.Labels{"app": "web"}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
	same, other := w, w
	same.Name, same.Addrs = "web-2", nil
	other.Labels = identity.Labels{"app": "web", "tier": "x"}
	if identityText(&w) != identityText(&same) || identityText(&w) == identityText(&other) {
		t.Error("wrong")
	}
	ports := w
	ports.Ports = []identity.ContainerPort{{Name: "http", Protocol: identity.TCP, Port: 80}}
	if identityText(&ports) == identityText(&w) {
		t.Error("named ports are told apart by policy")
	}
}
