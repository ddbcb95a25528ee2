package simulate

import (
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// maxPairs bounds the (client, server) workloads tried for one edge.
const maxPairs = 64

// Edge is connections that were seen, folded to who and where to.
type Edge struct {
	Client, Server   string          // for people: services, "node", an address
	Clients, Servers []identity.Peer // who stands for each end: workloads that were seen there, or an address
	Protocol         identity.Protocol
	Port             uint16
	Names            []string // DNS names by which clients knew the server
	Count            uint64   // connections that were let through; 0: it was only ever denied
	Denied           uint64
	First, Last      time.Time
}

// World is one state of policies and modes.
type World struct {
	Set *policy.Set
	// Judge is what Set says of a connection: usually Set.Evaluate on a View.
	Judge func(policy.Connection) policy.Decision
	// Outcome is what happens to the packets, which modes decide too. Nil: what policy says.
	Outcome func(policy.Decision, policy.Connection) policy.Verdict
}

// Change is an edge whose verdict is another in the new world.
type Change struct {
	Edge
	Who    policy.Connection // the pair of workloads that decides: the strictest of those that were seen
	Side   policy.Direction  // which end's policy decides it
	Rule   string            // the rule that denies or allows; empty: the default does
	Reason string            // a sentence
}

// Use is how far what was seen needs a rule.
type Use struct {
	Policy      policy.Key
	Rule        string // "shop/cart ingress[0]"
	Source      string // of the policy: "shop.yaml:14"
	Action      policy.Action
	Edges       int    // that it decides
	Connections uint64 // of them
}

// Report is what the new world makes of what was seen.
type Report struct {
	Breaks  []Change // seen, let through, and denied in the new world
	Opens   []Change // denied until now, allowed in the new world
	Allowed int      // edges that stay allowed
	Denied  int      // edges that stay denied
	Unknown []Edge   // nobody stands for one of their ends any more: not judged
	Rules   []Use    // every rule of the new set, in the order of the set
}

// Unused lists the rules that decide none of the edges.
func (r *Report) Unused() []Use {
	var out []Use
	for _, u := range r.Rules {
		if u.Edges == 0 {
			out = append(out, u)
		}
	}
	return out
}

// Compare judges edges in two worlds. from may be nil: then evidence is what they are compared with, an
// edge that was let through counting as allowed.
//
// An edge breaks when it was let through and would be denied in fact, or when the new policies deny
// what the old ones allow, whatever the modes: they are meant to be enforced one day. The order of
// edges is kept.
func Compare(from *World, to World, edges []Edge) Report {
	var out Report
	uses := usesOf(to.Set)
	for i := range edges {
		e := &edges[i]
		if len(e.Clients) == 0 || len(e.Servers) == 0 {
			out.Unknown = append(out.Unknown, *e)
			continue
		}
		will := to.judge(e)
		for rule := range will.rules {
			if u := uses.by[rule]; u != nil {
				u.Edges++
				u.Connections += e.Count
			}
		}
		was := evidence(e)
		if from != nil {
			was = from.judge(e)
		}
		switch {
		case e.Count > 0 && (was.policy == policy.Allow && will.policy == policy.Deny || was.outcome != policy.Deny && will.outcome == policy.Deny):
			out.Breaks = append(out.Breaks, will.change(e))
		case was.policy == policy.Deny && will.policy == policy.Allow, was.outcome == policy.Deny && will.outcome != policy.Deny:
			c := will.change(e)
			if was.reason != "" {
				c.Reason += "; denied until now: " + was.reason
			}
			out.Opens = append(out.Opens, c)
		case will.outcome == policy.Deny:
			out.Denied++
		default:
			out.Allowed++
		}
	}
	out.Rules = uses.list()
	return out
}

// judged is what a world makes of an edge.
type judged struct {
	policy  policy.Verdict // whatever the modes
	outcome policy.Verdict
	who     policy.Connection
	side    policy.Direction
	rule    string
	reason  string
	rules   map[string]bool // that had a part in it
}

func evidence(e *Edge) judged {
	if e.Count > 0 {
		return judged{policy: policy.Allow, outcome: policy.Allow}
	}
	return judged{}
}

// judge takes the strictest verdict over the workloads at the edge's ends.
func (w *World) judge(e *Edge) judged {
	out := judged{policy: policy.Allow, outcome: policy.Allow, rules: map[string]bool{}}
	tried := 0
	for _, c := range e.Clients {
		for _, s := range e.Servers {
			if tried++; tried > maxPairs {
				return out
			}
			q := policy.Connection{Client: c, Server: s, Protocol: e.Protocol, Port: e.Port, Names: e.Names}
			d := w.Judge(q)
			got := d.Verdict
			if w.Outcome != nil {
				got = w.Outcome(d, q)
			}
			note(out.rules, d.Egress)
			note(out.rules, d.Ingress)
			if tried == 1 || d.Verdict < out.policy || got < out.outcome {
				out.who = q
				out.side, out.rule, out.reason = decider(d)
			}
			out.policy, out.outcome = min(out.policy, d.Verdict), min(out.outcome, got)
		}
	}
	return out
}

// decider is the side that denies, or, where both allow, the one with a rule for it.
func decider(d policy.Decision) (policy.Direction, string, string) {
	e, i := d.Egress, d.Ingress
	if e.Verdict != policy.Allow || i.Verdict == policy.Allow && i.Rule == "" && e.Rule != "" {
		return policy.Egress, e.Rule, e.Reason
	}
	return policy.Ingress, i.Rule, i.Reason
}

func (j *judged) change(e *Edge) Change {
	return Change{Edge: *e, Who: j.who, Side: j.side, Rule: j.rule, Reason: j.reason}
}

// note writes down the rules that decided a side, or passed it on.
func note(rules map[string]bool, s policy.SideDecision) {
	if s.Rule != "" {
		rules[s.Rule] = true
	}
	for _, x := range s.Steps {
		if x.Rule != "" && x.Outcome == "pass" {
			rules[x.Rule] = true
		}
	}
}
