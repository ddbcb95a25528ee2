package policy

import (
	"fmt"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// Connection is what is judged: who opened it, to whom, on which server port. For ICMP the port is
// the message type.
type Connection struct {
	Client   identity.Peer
	Server   identity.Peer // a virtual address counts as all workloads behind that port
	Protocol identity.Protocol
	Port     uint16
	Names    []string // DNS names under which the client knows the server's address, lower case
}

// Decision is what policy says of a connection, whatever the modes. The zero value denies.
type Decision struct {
	Verdict Verdict // Allow exactly when both sides allow; never Alert
	Egress  SideDecision
	Ingress SideDecision
}

// SideDecision is one end's part, with why.
type SideDecision struct {
	Isolated bool     // a policy selects this end in this direction
	Verdict  Verdict  // Allow or Deny
	Rule     string   // what allowed it: "shop/cart ingress[0]", or a built-in; empty when open or denied
	Nearest  string   // when denied: the rule that came nearest, if any did
	Reason   string   // a sentence
	Policies []string // that select this end in this direction, "shop/cart"
	Steps    []Step   // the stations on the way to the verdict, in order
	Severity string   // of an alert about a denial, where a policy says so
	Note     string   // the free-text reason of the rule or policy that decided, where it has one
}

// Step is one station on the way to a verdict: a tier that had no say, a rule that passed on, the one
// that decided, or what nearly did.
type Step struct {
	Tier    string `json:"tier"`             // "built-in", "admin", "namespace", "baseline", "default"
	Policy  string `json:"policy,omitempty"` // "shop/cart"; a cluster-wide one without namespace
	Rule    string `json:"rule,omitempty"`   // "shop/cart ingress[0]"
	Source  string `json:"source,omitempty"` // "shop.yaml:14"
	Outcome string `json:"outcome"`          // "allow", "deny", "pass", "isolate", "no match"
	Text    string `json:"text"`             // a sentence
}

// Reasons tells the whole way to the verdict, one sentence each.
func (d Decision) Reasons() []string {
	var out []string
	for _, s := range []struct {
		dir  Direction
		side SideDecision
	}{{Egress, d.Egress}, {Ingress, d.Ingress}} {
		if s.side.Isolated {
			out = append(out, fmt.Sprintf("%s of this end is isolated by %s", s.dir, strings.Join(s.side.Policies, ", ")))
		}
		out = append(out, fmt.Sprintf("%s: %s: %s", s.dir, s.side.Verdict, s.side.Reason))
	}
	return out
}

// Evaluate judges a connection at both ends: egress at the client, ingress at the server; both must
// allow. It agrees with [Set.Entries] for every address, protocol and port.
//
// "For a connection from a source pod to a destination pod to be allowed, both the egress policy on
// the source pod and the ingress policy on the destination pod need to allow the connection. If
// either side does not allow the connection, it will not happen." (Kubernetes, Network Policies)
func (s *Set) Evaluate(v *identity.View, c Connection) Decision {
	c.Client, c.Server = complete(c.Client), complete(c.Server)
	d := Decision{Egress: s.egress(v, c), Ingress: s.ingress(v, c)}
	if d.Egress.Verdict == Allow && d.Ingress.Verdict == Allow {
		d.Verdict = Allow
	}
	return d
}

// complete normalises a peer's address; a workload asked for without one stands for its first.
func complete(p identity.Peer) identity.Peer {
	switch {
	case p.Addr.IsValid():
		p.Addr = identity.Normal(p.Addr)
	case p.Workload != nil && len(p.Workload.Addrs) > 0:
		p.Addr = p.Workload.Addrs[0]
	}
	return p
}

func (s *Set) egress(v *identity.View, c Connection) SideDecision {
	q := &ask{view: v, dir: Egress, subject: c.Client.Workload, other: c.Server, protocol: c.Protocol, port: c.Port}
	side := s.newSide(q, c.Client)
	if !side.Isolated {
		return side.SideDecision
	}
	if isVIP(v, c.Server) {
		return side.judgeVIP(q)
	}
	return side.judge(q, byAddress)
}

// ingress of a connection to a virtual address is asked at every workload behind it: any of them
// may get it, so all must allow it.
func (s *Set) ingress(v *identity.View, c Connection) SideDecision {
	if !isVIP(v, c.Server) {
		return s.ingressOf(v, c)
	}
	service := v.VIPNames[c.Server.Addr]
	backends := v.Backends(identity.VIPKey{Addr: c.Server.Addr, Protocol: c.Protocol, Port: c.Port})
	out := SideDecision{Verdict: Allow, Reason: fmt.Sprintf("service %s has no known workload behind %s/%d", service, c.Protocol, c.Port)}
	for _, b := range backends {
		for _, a := range familyOf(b.Workload, c.Server.Addr) {
			to := c
			to.Server, to.Port = backendPeer(v, b.Workload, a), b.Port
			side := s.ingressOf(v, to)
			side.Reason = fmt.Sprintf("behind service %s: %s", service, side.Reason)
			if side.Verdict != Allow {
				return side
			}
			if out.Rule == "" || side.Isolated {
				out = side
			}
		}
	}
	return out
}

func (s *Set) ingressOf(v *identity.View, c Connection) SideDecision {
	q := &ask{view: v, dir: Ingress, subject: c.Server.Workload, other: c.Client, protocol: c.Protocol, port: c.Port}
	side := s.newSide(q, c.Server)
	if !side.Isolated {
		return side.SideDecision
	}
	return side.judge(q, byAddress)
}

// side is one end with the policies that isolate it.
type side struct {
	SideDecision
	dir      Direction
	policies []*compiled
}

// newSide finds out who isolates an end. One that nobody isolates is decided by it:
//
// "By default, a pod is non-isolated for egress; all outbound connections are allowed." (and the
// same for ingress)
func (s *Set) newSide(q *ask, end identity.Peer) side {
	out := side{dir: q.dir}
	open := func(format string, args ...any) side {
		out.Verdict, out.Reason = Allow, fmt.Sprintf(format, args...)
		return out
	}
	switch {
	case q.subject == nil:
		return open("%s is no workload: no policy can select it", end)
	case q.subject.HostNetwork:
		return open("%s/%s shares its node's network: no policy can select it", q.subject.Namespace, q.subject.Name)
	}
	out.policies = s.selecting(q.subject, q.dir)
	if len(out.policies) == 0 {
		return open("no policy isolates %s of %s/%s: everything is allowed", q.dir, q.subject.Namespace, q.subject.Name)
	}
	out.Isolated = true
	for _, c := range out.policies {
		out.Policies = append(out.Policies, c.String())
	}
	return out
}

// judge asks the built-in rules, then all rules of the policies, of which one is enough. least is
// byAddress for all rules, or byName to leave out those that match by address.
//
// "Network policies do not conflict; they are additive. If any policy or policies apply to a given
// pod for a given direction, the connections allowed in that direction from that pod is the union
// of what the applicable policies allow."
func (s side) judge(q *ask, least manner) SideDecision {
	if rule := builtIn(q); rule != "" {
		s.Verdict, s.Rule, s.Reason = Allow, rule, builtInReasons[rule]
		return s.SideDecision
	}
	if r := s.find(q, least); r != nil {
		s.Verdict, s.Rule = Allow, r.name
		s.Reason = fmt.Sprintf("%s allows %s on %s", r.name, otherName(q), portName(q))
		return s.SideDecision
	}
	s.Reason, s.Nearest = s.why(q)
	return s.SideDecision
}

var builtInReasons = map[string]string{
	BuiltInNode: "built-in node: the node may always talk to its own workloads",
	BuiltInDNS:  "built-in dns: workloads may always ask their resolvers",
	BuiltInSelf: "built-in self: a workload's traffic with itself is never judged",
}

// find gives the first rule that allows it at least in that manner.
func (s side) find(q *ask, least manner) *rule {
	for _, c := range s.policies {
		h := c.half(q.dir)
		for i := range h.rules {
			if h.rules[i].match(q) >= least {
				return &h.rules[i]
			}
		}
	}
	return nil
}
