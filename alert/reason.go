package alert

import (
	"fmt"
	"net"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// keyOfCase is the edge that a case is about: through a virtual address, that of its backend.
func keyOfCase(c *Case) flow.Key {
	if k := c.Sighting.Key; k.Protocol != identity.AnyProtocol {
		return k
	}
	return flow.Key{Client: flow.EndOf(c.Client), Server: flow.EndOf(c.Server), Protocol: c.Record.Protocol, Port: c.Record.Port}
}

// partyOf names one end.
func partyOf(p identity.Peer, e flow.End) Party {
	out := Party{Service: e.String(), Addr: p.Addr}
	if e.Kind == identity.World {
		out.Service = "world"
	}
	if w := p.Workload; w != nil && p.Kind == identity.Pod {
		out.Workload = w.Namespace + "/" + w.Name
	}
	return out
}

// name is how a sentence calls a party: the workload, else its address, else the service.
func (p Party) name() string {
	switch {
	case p.Workload != "":
		return p.Workload
	case p.Service == "world" && p.Addr.IsValid():
		return p.Addr.String()
	}
	return p.Service
}

// connection fills what denied and newEdge have in common.
func connection(c *Case) (Alert, flow.Key) {
	k, r := keyOfCase(c), &c.Record
	a := Alert{
		Client: partyOf(c.Client, k.Client), Server: partyOf(c.Server, k.Server),
		Protocol: k.Protocol, Port: k.Port, Verdict: c.Outcome(), Count: max(r.Count, 1), First: r.Time, Last: r.Time,
	}
	if c.Server.Kind == identity.World {
		a.Server.Service = "world"
		if len(c.Names) > 0 {
			a.Server.Name = c.Names[0]
		}
	}
	return a, k
}

// target names what was tried: "shop/db on TCP/22", "203.0.113.7 (api.example.com) on TCP/443".
func (a *Alert) target(k flow.Key) string {
	name := ""
	if a.Server.Name != "" {
		name = " (" + a.Server.Name + ")"
	}
	return k.Server.String() + name + " on " + flow.PortName(k.Protocol, k.Port)
}

// denied is about a connection that policy denies.
func denied(c *Case) Alert {
	a, k := connection(c)
	a.Kind, a.Verdict = DeniedBy, min(a.Verdict, c.Record.Verdict)
	if c.Record.Event == flow.Denied {
		a.Verdict = policy.Deny
	}
	a.Severity = Medium
	if a.Verdict == policy.Alert {
		a.Severity = Low
	}
	if flow.IsMetadata(k.Server) {
		a.Severity = High
	}
	end := "was stopped"
	if a.Verdict == policy.Alert {
		end = "was let through by mode alert"
	}
	dir, side := denyingSide(c)
	if dir == 0 {
		a.Reason = fmt.Sprintf("%s tried %s and %s by rules that changed since: the policies now in force allow it", a.Client.name(), a.target(k), end)
		a.Advice = "nothing, unless it goes on; then: " + explain(k)
		return a
	}
	if a.Breaks = policies(side.Policies); side.Rule != "" {
		a.Breaks = "rule " + side.Rule
	}
	a.Reason = fmt.Sprintf("%s tried %s and %s: %s", a.Client.name(), a.target(k), end, side.Reason)
	if side.Note != "" && !strings.Contains(side.Reason, side.Note) {
		a.Reason += "; the policy says why: " + side.Note
	}
	if side.Severity != "" {
		a.Severity = Severity(side.Severity)
	}
	a.Advice = allowing(c, k, dir, side)
	return a
}

// denyingSide is the end whose policies deny: the client's first, as on the wire. Zero: neither.
func denyingSide(c *Case) (policy.Direction, policy.SideDecision) {
	d := c.Decision
	switch {
	case sideVerdict(d.Egress, c.ClientMode) != policy.Allow && sideVerdict(d.Egress, c.ClientMode) <= sideVerdict(d.Ingress, c.ServerMode):
		return policy.Egress, d.Egress
	case sideVerdict(d.Ingress, c.ServerMode) != policy.Allow:
		return policy.Ingress, d.Ingress
	}
	return 0, policy.SideDecision{}
}

// policies names at most three: "policy shop/db", "policies shop/db, shop/all and 2 more".
func policies(names []string) string {
	switch n := len(names); {
	case n == 0:
		return ""
	case n == 1:
		return "policy " + names[0]
	case n <= 3:
		return "policies " + strings.Join(names, ", ")
	default:
		return fmt.Sprintf("policies %s and %d more", strings.Join(names[:3], ", "), n-3)
	}
}

// newEdge is about a connection that nothing denies and no baseline knows.
func newEdge(c *Case) Alert {
	a, k := connection(c)
	a.Kind, a.Severity = NewEdge, Medium
	if flow.IsMetadata(k.Server) {
		a.Severity = High
	}
	a.Breaks = "baseline " + c.Baseline.String()
	a.Reason = fmt.Sprintf("%s called %s, which %s never did while it learned; no policy denies it and it was let through",
		a.Client.name(), a.target(k), k.Client)
	if k.Client.Kind != identity.Pod || c.Baseline != k.Client.Service {
		a.Reason = fmt.Sprintf("%s called %s, which nothing of %s did while %s learned; no policy denies it and it was let through",
			a.Client.name(), a.target(k), k.Client, c.Baseline)
	}
	a.Advice = fmt.Sprintf("if it belongs there, learn it: bulkhead mode %s learn; if not, isolate it: bulkhead policy generate --service %s", c.Baseline, c.Baseline)
	return a
}

// sender is the workload that a guard speaks of. What the frame says of its sender may be a lie.
func sender(c *Case) Party {
	if w := c.Workload; w != nil {
		p := Party{Service: w.Service.String(), Workload: w.Namespace + "/" + w.Name}
		if len(w.Addrs) > 0 {
			p.Addr = w.Addrs[0]
		}
		return p
	}
	return partyOf(c.Client, flow.EndOf(c.Client))
}

// spoof is about a frame with somebody else's sender.
func spoof(c *Case) Alert {
	r := &c.Record
	a := Alert{Kind: Spoof, Severity: High, Client: sender(c), Protocol: r.Protocol, Port: r.Port, Verdict: policy.Deny,
		Count: max(r.Count, 1), First: r.Time, Last: r.Time}
	if r.Server.IsValid() {
		a.Server = partyOf(c.Server, flow.EndOf(c.Server))
	}
	claim := "MAC " + net.HardwareAddr(r.SourceMAC[:]).String()
	if r.Client.IsValid() {
		claim += " and address " + r.Client.String()
	}
	a.Reason = fmt.Sprintf("%s sent %s with sender %s, which are not both its own; the guard dropped it", a.Client.name(), frame(r), claim)
	if p := c.Client; p.Kind != identity.World && p.Workload != c.Workload {
		a.Reason += "; the address belongs to " + p.String()
	}
	a.Advice = "find out what runs in " + a.Client.name() + "; honest programs do not need it, and CAP_NET_RAW, which it takes, can be dropped"
	return a
}

// rawSocket is about a frame that the namespace's own rules would never have let out.
func rawSocket(c *Case) Alert {
	r := &c.Record
	a := Alert{Kind: RawSocket, Severity: High, Client: sender(c), Protocol: r.Protocol, Port: r.Port, Verdict: policy.Deny,
		Count: max(r.Count, 1), First: r.Time, Last: r.Time}
	if r.Server.IsValid() {
		a.Server = partyOf(c.Server, flow.EndOf(c.Server))
	}
	to := ""
	if r.Server.IsValid() {
		to = " to " + c.Server.String()
		if r.Protocol.HasPorts() {
			to += " on " + flow.PortName(r.Protocol, r.Port)
		}
	}
	a.Reason = fmt.Sprintf("%s sent %s%s past the rules of its own namespace, by a raw socket (AF_PACKET, AF_XDP) or the like; the guard dropped it",
		a.Client.name(), frame(r), to)
	a.Advice = "find out what runs in " + a.Client.name() + "; CAP_NET_RAW, which it takes, can be dropped"
	return a
}

// frame says what kind of frame it was.
func frame(r *flow.Record) string {
	switch r.EtherType {
	case 0:
		return "a frame"
	case 0x0800:
		return "an IPv4 frame"
	case 0x86dd:
		return "an IPv6 frame"
	case 0x0806:
		return "an ARP frame"
	case 0x8100, 0x88a8:
		return "a VLAN-tagged frame"
	}
	return fmt.Sprintf("a frame of ethertype %#04x", r.EtherType)
}
