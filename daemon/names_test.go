package daemon

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/api"
)

// outside is a namespace that plays the world: it owns 203.0.113.0/24, with a DNS server on .53.
type outside struct {
	*pod
	mu   sync.Mutex
	zone map[string]string // name to address
}

// says puts an address into the zone: whoever has it may say what he likes.
func (o *outside) says(name, addr string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.zone[name] = addr
}

// knows looks a name up in the zone.
func (o *outside) knows(name string) (string, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	a, ok := o.zone[name]
	return a, ok
}

const testResolver = "203.0.113.53"

func newOutside(n *node, zone map[string]string) *outside {
	n.t.Helper()
	o := &outside{pod: n.pod("outside-1"), zone: zone}
	h := o.handle()
	defer h.Close()
	lo, err := h.LinkByName("lo")
	n.must(err)
	_, world, _ := net.ParseCIDR("203.0.113.0/24")
	n.must(h.RouteAdd(&netlink.Route{Dst: world, LinkIndex: lo.Attrs().Index, Type: 2 /* RTN_LOCAL */, Scope: netlink.SCOPE_HOST, Table: 255}))
	var c net.PacketConn
	n.must(in(o.ns, func() (err error) {
		c, err = net.ListenPacket("udp4", testResolver+":53")
		return err
	}))
	n.t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			k, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(o.answer(buf[:k]), from)
		}
	}()
	return o
}

func (o *outside) answer(query []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response = true
	name := m.Questions[0].Name
	if a, ok := o.knows(strings.TrimSuffix(name.String(), ".")); ok {
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 1},
			Body: &dnsmessage.AResource{A: netip.MustParseAddr(a).As4()}}}
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}

// lookUp asks the resolver from a pod and waits for the answer.
func (o *outside) lookUp(p *pod, name string) error {
	return in(p.ns, func() error {
		c, err := net.Dial("udp4", testResolver+":53")
		if err != nil {
			return err
		}
		defer c.Close()
		m := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name + "."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
		q, err := m.Pack()
		if err != nil {
			return err
		}
		if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		if _, err := c.Write(q); err != nil {
			return err
		}
		_, err = c.Read(make([]byte, 512))
		return err
	})
}

// client makes a pod of the node that has the resolver, and a way to the world.
func (o *outside) client(d *process, name string) *pod {
	o.n.t.Helper()
	p := o.n.pod(name)
	h := p.handle()
	defer h.Close()
	route(o.n.t, h, o.v4.String())
	req := p.request("ADD")
	req.Resolvers = []string{testResolver}
	d.cni(req)
	return p
}

var webByName = api.File{Name: "web.yaml", Data: `apiVersion: bulkhead.dev/v1alpha1
kind: Policy
metadata:
  name: web
  namespace: shop
spec:
  podSelector:
    matchLabels:
      app: web
  policyTypes: [Egress]
  egress:
  - to:
    - dnsName: "*.example.com"
    ports:
    - protocol: TCP
      port: 8080
`}

// TestNames: a policy by DNS name, from YAML to packets, through a crash.
func TestNames(t *testing.T) {
	n := newNode(t)
	d := n.start()
	o := newOutside(n, map[string]string{"api.example.com": "203.0.113.10", "www.example.org": "203.0.113.11", "new.example.com": "203.0.113.12", "early.example.com": "203.0.113.9"})
	o.serve(8080)
	cart := n.pod("cart-1")
	d.add(cart)
	cart.serve(8080)
	web := o.client(d, "web-1")
	o.says("inside.example.com", cart.v4.String())

	// Mode learn hears of names without holding answers up.
	n.must(o.lookUp(web, "early.example.com"))
	early := mustAddr("203.0.113.9")
	n.must(web.reaches(early, 8080))
	eventually(t, 5*time.Second, "flow by its name", func() error {
		flows, err := d.client.Flows(ctx, api.FlowQuery{})
		if err == nil && !slices.ContainsFunc(flows, func(f api.Flow) bool { return f.ServerIP == early.String() && f.Name == "early.example.com" }) {
			err = fmt.Errorf("not among %+v", flows)
		}
		return err
	})
	d.apply("enforce", webByName)
	n.must(web.reaches(early, 8080)) // known since then

	api10, org11 := mustAddr("203.0.113.10"), mustAddr("203.0.113.11")
	if web.reaches(api10, 8080) == nil {
		t.Error("open before the name was looked up")
	}
	for _, name := range []string{"api.example.com", "www.example.org", "inside.example.com"} {
		n.must(o.lookUp(web, name))
	}
	held, err := web.dial(api10, 8080, 900*time.Millisecond) // less than a segment takes to be sent again
	n.must(err)
	defer held.Close()
	if web.reaches(org11, 8080) == nil {
		t.Error("a name that policy does not name opened something")
	}
	if web.reaches(cart.v4, 8080) == nil {
		t.Error("a name of the outside opened the way to a pod")
	}
	d.wantAlert(alert.DeniedBy, "about the other name's address", func(a alert.Alert) bool { return a.Server.Addr == org11 })
	for _, a := range d.alertsOf(alert.DeniedBy) {
		if a.Server.Addr == api10 && a.Time.After(time.Now().Add(-time.Second)) && a.Verdict.String() == "allow" {
			t.Errorf("alert about what a name opens: %+v", a)
		}
	}
	x, err := d.client.Explain(ctx, api.ExplainRequest{Client: "shop/web-1", Server: api10.String(), Protocol: "TCP", Port: 8080})
	n.must(err)
	if x.Verdict != "allow" || !strings.Contains(x.Egress.Rule, "shop/web") || !strings.Contains(fmt.Sprint(x.Notes), "api.example.com") {
		t.Errorf("explained: %+v", x)
	}

	if tr, err := d.client.Trace(ctx, api.TraceRequest{Client: "shop/web-1", Server: "API.example.com.", Protocol: "TCP", Port: 8080}); err != nil || !tr.Agrees || tr.Outcome != api.FatePass {
		t.Errorf("traced: %+v, %v", tr, err)
	}
	eventually(t, 5*time.Second, "names stored", func() error {
		state, err := os.ReadFile(filepath.Join(n.dir, "state", "state.db"))
		if err == nil && !bytes.Contains(state, []byte("api.example.com")) {
			err = errNot
		}
		return err
	})
	for range 2 {
		d.kill()
		if _, err := fmt.Fprintln(held, "on its own"); err != nil {
			t.Error("the connection ended with the daemon")
		}
		d = n.start()
		n.must(web.reaches(api10, 8080))
		if web.reaches(org11, 8080) == nil {
			t.Error("open after a restart")
		}
	}
	// The API answers a moment before the last workload is taken over, on a busy machine.
	eventually(t, 5*time.Second, "a name after restarts", func() error {
		if err := o.lookUp(web, "new.example.com"); err != nil {
			return err
		}
		return web.reaches(mustAddr("203.0.113.12"), 8080)
	})
}
