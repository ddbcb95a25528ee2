package daemon

import (
	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// compareTrace fills in what happened in each place, beside what the verdicts of both sides predict.
func compareTrace(out *api.Trace, traced firewall.Traced, egress, ingress policy.Verdict, d policy.Decision) {
	out.Agrees, out.Outcome = true, api.FateNotReached
	for i, s := range traced.Steps {
		stage := firewall.Stage(i)
		row := api.TraceStep{Place: stage.String(), Fate: s.Fate.String(), Alert: s.Alerted, Rejected: s.Rejected, Table: s.Table, Chain: s.Chain,
			Rule: s.Rule, Comment: s.Comment}
		if s.Fate != firewall.NotHere {
			row.Expected, row.Policy = expected(stage, egress, ingress, d)
			out.Agrees = out.Agrees && row.Expected == did(s)
			out.Outcome = row.Fate
		}
		out.Steps = append(out.Steps, row)
	}
	for _, s := range traced.Steps {
		if s.Fate == firewall.Dropped {
			out.Outcome = api.FateDrop
		}
	}
	if traced.Node.Fate == firewall.Dropped {
		out.Outcome = api.FateDrop
	}
}

// did is a step's fate in the words of expected.
func did(s firewall.Step) string {
	if s.Alerted {
		return policy.Alert.String()
	}
	return s.Fate.String()
}

// expected is what should happen in a place, and which rule says so. The guards let through what the
// namespaces do.
func expected(stage firewall.Stage, egress, ingress policy.Verdict, d policy.Decision) (fate, rule string) {
	verdict, side := egress, d.Egress
	switch stage {
	case firewall.AtServer:
		verdict, side = ingress, d.Ingress
	case firewall.AtClientGuard, firewall.AtServerGuard:
		verdict = policy.Allow
	}
	switch {
	case stage != firewall.AtClient && egress == policy.Deny:
		return api.FateNotReached, ""
	case stage == firewall.AtClientGuard || stage == firewall.AtServerGuard:
		return api.FatePass, ""
	case verdict == policy.Deny:
		return api.FateDrop, why(side)
	case verdict == policy.Alert:
		return policy.Alert.String(), why(side)
	}
	return api.FatePass, why(side)
}
