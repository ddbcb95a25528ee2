package daemon

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

const (
	// probeKept is how long a probe is known for ours: as long as an answer to it may take.
	probeKept = firewall.UDPTimeout * time.Second
	// probesKept bounds how many are, so that nobody can hide behind them by tracing on and on.
	probesKept = 64
)

// traces are the probes that we sent. What the kernel tells of them is no behaviour of anybody.
type traces struct {
	one sync.Mutex // held through a trace: there is one at a time on a node

	mu   sync.Mutex
	sent []sentProbe
}

type sentProbe struct {
	firewall.Probe
	clientPort uint16
	until      time.Time
}

func (t *traces) add(p firewall.Probe, clientPort uint16, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.sent) == probesKept {
		t.sent = t.sent[1:]
	}
	t.sent = append(t.sent, sentProbe{p, clientPort, now.Add(probeKept)})
}

// mine says whether a record is of a probe, or of an answer to one.
func (t *traces) mine(r *flow.Record) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.sent) > 0 && r.Time.After(t.sent[0].until) {
		t.sent = t.sent[1:]
	}
	for _, p := range t.sent {
		if r.Protocol != p.Protocol || r.Event == flow.Usage {
			continue
		}
		there := r.Client == p.Client && r.Server == p.Server && r.ClientPort == p.clientPort && (r.Port == p.Port || p.Protocol.IsICMP())
		back := r.Client == p.Server && r.Server == p.Client && (r.ClientPort == p.Port && r.Port == p.clientPort || p.Protocol.IsICMP() && r.ClientPort == p.clientPort)
		if there || back {
			return true
		}
	}
	return false
}

// Trace sends one packet from a workload of this node, and says at which of the four places it passed
// or died, beside what Explain predicts.
func (d *Daemon) Trace(ctx context.Context, r api.TraceRequest) (api.Trace, error) {
	view, m, set := d.index.View(), d.modes.Load(), d.rules.Load().set
	var out api.Trace
	c, err := d.probed(view, r, &out.Notes)
	if err != nil {
		return out, err
	}
	from, err := d.hereNamespace(ctx, c.Client)
	if err != nil {
		return out, err
	}
	var to *firewall.Namespace
	if c.Server.Workload != nil && c.Server.Workload.Local {
		if to, err = d.hereNamespace(ctx, c.Server); err != nil {
			return out, err
		}
	} else {
		out.Notes = append(out.Notes, elsewhere(c.Server))
	}
	p := firewall.Probe{Client: c.Client.Addr, Server: c.Server.Addr, Protocol: c.Protocol, Port: c.Port}
	port, traced, err := d.shoot(ctx, from, to, p)
	if err != nil {
		return out, err
	}
	out.Client, out.ClientIP, out.ClientPort = endName(c.Client), c.Client.Addr.String(), port
	out.Server, out.ServerIP = endName(c.Server), c.Server.Addr.String()
	out.Protocol, out.Port = c.Protocol.String(), c.Port
	if traced.Unsent != nil {
		out.Notes = append(out.Notes, fmt.Sprintf("the packet was not sent: %v", traced.Unsent))
	}
	if n := traced.Node; n.Fate == firewall.Dropped {
		out.Notes = append(out.Notes, fmt.Sprintf("dropped on the node, between the guards, by table %s, chain %s: that is none of ours", n.Table, n.Chain))
	}
	decision := set.Evaluate(view, c)
	compareTrace(&out, traced, sideVerdict(decision.Egress, m.modeOf(c.Client)), sideVerdict(decision.Ingress, m.modeOf(c.Server)), decision)
	return out, nil
}

// shoot runs one trace, and has it known for ours before the packet is sent.
func (d *Daemon) shoot(ctx context.Context, from, to *firewall.Namespace, p firewall.Probe) (port uint16, traced firewall.Traced, err error) {
	d.traces.one.Lock()
	defer d.traces.one.Unlock()
	t, err := firewall.OpenTrace(from, to, p)
	if err != nil {
		return 0, traced, api.Errorf(api.BadRequest, "%v", err)
	}
	d.traces.add(p, t.ClientPort, d.now())
	traced, err = t.Run(ctx)
	if e := t.Close(); err == nil {
		err = e
	}
	return t.ClientPort, traced, err
}

// probed resolves the ends of a probe, and picks addresses of one family.
func (d *Daemon) probed(view *identity.View, r api.TraceRequest, notes *[]string) (policy.Connection, error) {
	var c policy.Connection
	var err error
	if c.Protocol, err = identity.ParseProtocol(r.Protocol); err != nil {
		return c, api.Errorf(api.BadRequest, "%v", err)
	}
	if c.Client, err = resolve(view, r.Client, notes); err != nil {
		return c, err
	}
	if c.Server, err = d.resolveServer(view, c.Client, r.Server, notes); err != nil {
		return c, err
	}
	if c.Port, err = portOf(r, c.Protocol, c.Server); err != nil {
		return c, err
	}
	switch w := c.Client.Workload; {
	case w == nil:
		return c, api.Errorf(api.BadRequest, "%s: it is no workload; a probe is sent from a workload's namespace", r.Client)
	case !w.Local:
		return c, api.Errorf(api.NotFound, "%s runs on node %s; trace it there", r.Client, cmp.Or(w.Node, "unknown to this one"))
	}
	if c.Protocol.IsICMP() && c.Port != 8 && c.Port != 128 {
		return c, api.Errorf(api.BadRequest, "%s/%d: a probe is an echo request: ICMP/8 or ICMPv6/128", c.Protocol, c.Port)
	}
	for _, v6 := range []bool{false, true} {
		if c.Protocol == identity.ICMP && v6 || c.Protocol == identity.ICMPv6 && !v6 {
			continue
		}
		client, server := addrOf(c.Client, v6), addrOf(c.Server, v6)
		if client.IsValid() && server.IsValid() {
			c.Client.Addr, c.Server.Addr = client, server
			c.Names = d.namesKnown(c.Client, c.Server)
			return c, nil
		}
	}
	return c, api.Errorf(api.BadRequest, "%s and %s have no address of one family for %s", r.Client, r.Server, c.Protocol)
}

// addrOf is an end's address of a family: the one that was named, if it is of that family.
func addrOf(p identity.Peer, v6 bool) netip.Addr {
	if p.Addr.IsValid() && p.Addr.Is6() == v6 {
		return p.Addr
	}
	if p.Workload != nil {
		for _, a := range p.Workload.Addrs {
			if a.Is6() == v6 {
				return a
			}
		}
	}
	return netip.Addr{}
}

func elsewhere(p identity.Peer) string {
	switch {
	case p.Workload != nil:
		return fmt.Sprintf("%s runs on node %s: what is judged there is not seen here", endName(p), cmp.Or(p.Workload.Node, "unknown to this one"))
	case p.Kind == identity.VIP:
		return fmt.Sprintf("%s is a virtual address: whom the packet went to behind it is not seen here", p.Network)
	}
	return fmt.Sprintf("%s is no workload: what becomes of the packet there is not seen here", endName(p))
}

func endName(p identity.Peer) string {
	if w := p.Workload; w != nil {
		return w.Namespace + "/" + w.Name
	}
	return p.String()
}

// hereNamespace is the namespace of a workload that runs here.
func (d *Daemon) hereNamespace(ctx context.Context, p identity.Peer) (*firewall.Namespace, error) {
	w := d.find(endName(p))
	if w == nil {
		return nil, api.Errorf(api.NotFound, "workload %q: none of that name runs on this node", endName(p))
	}
	got := make(chan *firewall.Namespace, 1)
	select {
	case w.asks <- func(ns *firewall.Namespace) { got <- ns }:
	case <-w.done:
		return nil, api.Errorf(api.NotFound, "workload %s: %v", w, errWithdrawn)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if ns := <-got; ns != nil && w.inForce().valid {
		return ns, nil
	}
	return nil, api.Errorf(api.NotReady, "workload %s: its rules are not in force yet", w)
}

// why is the rule that policy decides by, or the sentence where there is none.
func why(s policy.SideDecision) string {
	if s.Rule != "" {
		return s.Rule
	}
	return cmp.Or(s.Reason, strings.Join(s.Policies, ", "))
}
