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
	OnDeny   OnDeny   // when denied: how that is told

	By        Key   // the policy whose rule decided; zero: a built-in one, or none
	Index     int   // of that rule among the policy's rules of this direction
	Isolators []Key // when denied without a rule: the policies that isolate this end in this direction
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
		for _, x := range s.side.Steps {
			if x.Outcome == "pass" {
				out = append(out, fmt.Sprintf("%s: pass: %s", s.dir, x.Text))
			}
		}
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

// EvaluateSide is one end's part of Evaluate.
func (s *Set) EvaluateSide(v *identity.View, c Connection, d Direction) SideDecision {
	c.Client, c.Server = complete(c.Client), complete(c.Server)
	if d == Egress {
		return s.egress(v, c)
	}
	return s.ingress(v, c)
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
	q := &ask{view: v, dir: Egress, subject: c.Client.Workload, other: c.Server, protocol: c.Protocol, port: c.Port, names: c.Names}
	side, open := s.newSide(q, c.Client)
	switch {
	case open:
		return side.SideDecision
	case isVIP(v, c.Server):
		return side.judgeVIP(q)
	}
	return side.judge(q)
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
	side, open := s.newSide(q, c.Server)
	if open {
		return side.SideDecision
	}
	return side.judge(q)
}

// side is one end with all that has a say about it.
type side struct {
	SideDecision
	lineup
}

// newSide finds out who has a say. Where nobody has, it is open:
//
// "By default, a pod is non-isolated for egress; all outbound connections are allowed." (and the
// same for ingress)
func (s *Set) newSide(q *ask, end identity.Peer) (out side, isOpen bool) {
	open := func(format string, args ...any) (side, bool) {
		out.Verdict, out.Reason = Allow, fmt.Sprintf(format, args...)
		out.step("default", nil, "allow", out.Reason)
		return out, true
	}
	switch {
	case q.subject == nil:
		return open("%s is no workload: no policy can select it", end)
	case q.subject.HostNetwork:
		return open("%s/%s shares its node's network: no policy can select it", q.subject.Namespace, q.subject.Name)
	}
	out.lineup = s.lineup(q.subject, q.dir)
	if out.silent {
		return open("no policy isolates %s of %s/%s: everything is allowed", q.dir, q.subject.Namespace, q.subject.Name)
	}
	out.Isolated = out.isolated()
	for _, c := range out.isolators {
		out.Policies = append(out.Policies, c.String())
	}
	return out, false
}

// step notes a station.
func (d *SideDecision) step(tier string, r *rule, outcome, text string) {
	x := Step{Tier: tier, Outcome: outcome, Text: text}
	if r != nil {
		x.Policy, x.Rule, x.Source = r.policy.String(), r.name, r.policy.Source
	}
	d.Steps = append(d.Steps, x)
}

// found is what decides: a written rule, a built-in one, or nothing.
type found struct {
	allow   bool
	rule    *rule
	builtIn string
	passed  *rule // the admin tier's rule that passed on
}

// decide asks everybody in order; the first that matches, at least in that manner, decides.
//
// "Network policies do not conflict; they are additive. If any policy or policies apply to a given
// pod for a given direction, the connections allowed in that direction from that pod is the union
// of what the applicable policies allow."
func (l *lineup) decide(q *ask, least manner) found {
	if rule := alwaysAllowed(q); rule != "" {
		return found{allow: true, builtIn: rule}
	}
	var f found
	if r := first(l.admin, q, least); r != nil {
		if r.action != ActionPass {
			return found{allow: r.action == ActionAllow, rule: r}
		}
		f.passed = r
	}
	if r := first(l.spaces, q, least); r != nil {
		f.allow, f.rule = r.action == ActionAllow, r
		return f
	}
	if l.isolated() {
		if isDNS(q) {
			f.allow, f.builtIn = true, BuiltInDNS
		}
		return f
	}
	if r := first(l.baseline, q, least); r != nil {
		// "Pass … passes evaluation to the next tier": after the last one comes the default, which is open.
		f.allow, f.rule = r.action != ActionDeny, r
		return f
	}
	f.allow = least == byAddress // nobody has anything against it
	return f
}

func first(rules []*rule, q *ask, least manner) *rule {
	for _, r := range rules {
		if r.match(q) >= least {
			return r
		}
	}
	return nil
}

// judge decides, and says why.
func (s side) judge(q *ask) SideDecision {
	f := s.decide(q, byAddress)
	s.explain(q, f)
	return s.SideDecision
}

var builtInReasons = map[string]string{
	BuiltInNode: "built-in node: the node may always talk to its own workloads",
	BuiltInDNS:  "built-in dns: workloads may always ask their resolvers",
	BuiltInSelf: "built-in self: a workload's traffic with itself is never judged",
}
