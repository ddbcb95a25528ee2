package explain

import (
	"slices"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Explanation is both ends of a connection.
type Explanation struct {
	Decision policy.Decision
	Egress   Side
	Ingress  Side
}

// Side is one end's part.
type Side struct {
	Rules []Rule // that decide, match or nearly match, in this order
	Fix   *Fix   // where the side denies: the change that would allow; nil: none of one step was found
}

// How a rule stands to a connection.
const (
	Decides = "decides"
	Matches = "matches" // and another one decides
	Near    = "near"
)

// Rule is one rule with how it stands to the connection.
type Rule struct {
	Rule   string // "shop/cart ingress[0]"
	Source string // "shop.yaml:14:5"
	Action string // allow, deny or pass
	Match  string // Decides, Matches or Near
	Why    string // a sentence; of a near one, what is missing
}

// Fix is one change that would allow what a side denies.
type Fix struct {
	Text string // what to do where
	YAML string // what to write there
}

// maxRules is how many rules of one side are told.
const maxRules = 50

// Judge is what a set says of a connection: policy.Set.Evaluate on a view.
type Judge func(*policy.Set, policy.Connection) policy.Decision

// Explain explains what a set says of a connection between ends of a view. A connection to a Service's
// address is explained by the workload behind it that is denied, or the first.
func Explain(view *identity.View, set *policy.Set, judge Judge, c policy.Connection) Explanation {
	out := Explanation{Decision: judge(set, c)}
	c = behind(view, set, judge, c)
	for _, end := range []struct {
		side     *Side
		dir      policy.Direction
		subject  *identity.Workload
		decision policy.SideDecision
	}{
		{&out.Egress, policy.Egress, c.Client.Workload, out.Decision.Egress},
		{&out.Ingress, policy.Ingress, c.Server.Workload, out.Decision.Ingress},
	} {
		if end.subject == nil || end.subject.HostNetwork {
			continue
		}
		a := &asker{set: set, judge: judge, c: c, dir: end.dir, subject: end.subject}
		*end.side = a.side(end.decision)
	}
	return out
}

// behind puts a workload in the place of the Service that it stands behind.
func behind(view *identity.View, set *policy.Set, judge Judge, c policy.Connection) policy.Connection {
	if c.Server.Kind != identity.VIP {
		return c
	}
	out := c
	for i, b := range view.Backends(identity.VIPKey{Addr: c.Server.Addr, Protocol: c.Protocol, Port: c.Port}) {
		to := c
		to.Server = identity.Peer{Kind: identity.Pod, Workload: b.Workload}
		for _, a := range b.Workload.Addrs {
			if a.Is4() == c.Server.Addr.Is4() && !to.Server.Addr.IsValid() {
				to.Server.Addr = a
			}
		}
		to.Port = b.Port
		denied := judge(set, to).Verdict != policy.Allow
		if i == 0 || denied {
			out = to
		}
		if denied {
			break
		}
	}
	return out
}

// asker asks about one end.
type asker struct {
	set     *policy.Set
	judge   Judge
	c       policy.Connection
	dir     policy.Direction
	subject *identity.Workload
}

// decision is this end's part of what a set says.
func (a *asker) decision(set *policy.Set, c policy.Connection) policy.SideDecision {
	d := a.judge(set, c)
	if a.dir == policy.Egress {
		return d.Egress
	}
	return d.Ingress
}

func (a *asker) side(d policy.SideDecision) Side {
	var out Side
	about := a.set.About(a.subject, a.dir)
	for _, p := range about {
		at := p.Positions()
		for i := range p.Rules(a.dir) {
			if r, ok := a.rule(p, i, d.Rule); ok {
				r.Source = at.At(path(a.dir, i))
				out.Rules = append(out.Rules, r)
			}
		}
	}
	if d.Verdict != policy.Allow {
		for _, p := range a.set.Policies() {
			if !slices.Contains(about, p) {
				out.Rules = append(out.Rules, a.elsewhere(p)...)
			}
		}
		for _, p := range a.set.About(a.subject, opposite(a.dir)) {
			out.Rules = append(out.Rules, a.turned(p)...)
		}
		out.Fix = a.fix(d, out.Rules)
	}
	rank := map[string]int{Decides: 0, Matches: 1, Near: 2}
	slices.SortStableFunc(out.Rules, func(x, y Rule) int { return rank[x.Match] - rank[y.Match] })
	if len(out.Rules) > maxRules {
		out.Rules = out.Rules[:maxRules]
	}
	return out
}

func opposite(d policy.Direction) policy.Direction {
	if d == policy.Egress {
		return policy.Ingress
	}
	return policy.Egress
}

// rule says how one rule of a policy that selects this end stands to the connection; false: not at all.
func (a *asker) rule(p *policy.Policy, i int, decides string) (Rule, bool) {
	r := p.Rules(a.dir)[i]
	out := Rule{Rule: name(p, a.dir, i), Action: r.Action.String()}
	other, port := a.otherName(), portName(a.c)
	switch {
	case a.tried(p, r):
		out.Match, out.Why = Matches, verbs[r.Action]+" "+other+" on "+port+", and another rule is asked first"
		if out.Rule == decides {
			out.Match, out.Why = Decides, verbs[r.Action]+" "+other+" on "+port
		}
		return out, true
	case a.tried(p, withoutPorts(r)):
		out.Match, out.Why = Near, "is about "+other+", but on "+ports(r)+" only"
		return out, true
	case a.tried(p, withoutPeers(r)):
		why := a.peers(p, r)
		if why == "" {
			return out, false
		}
		out.Match, out.Why = Near, "is about "+port+", but "+why
		return out, true
	}
	return out, false
}

var verbs = map[policy.Action]string{policy.ActionAllow: "allows", policy.ActionDeny: "denies", policy.ActionPass: "passes on"}
