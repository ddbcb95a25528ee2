package alert

import (
	"strings"
	"testing"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// TestSeverityAndNote: the policy that denies says how bad that is, and why it is there; without it the
// judge's own rules hold.
func TestSeverityAndNote(t *testing.T) {
	for _, c := range []struct {
		severity string
		verdict  policy.Verdict
		want     Severity
	}{
		{"", policy.Deny, Medium},
		{"", policy.Alert, Low},
		{"critical", policy.Deny, Critical},
		{"high", policy.Alert, High},
		{"low", policy.Deny, Low},
	} {
		mode := policy.Enforce
		if c.verdict == policy.Alert {
			mode = policy.AlertMode
		}
		// Nobody isolates the end: a rule that denies does so all the same.
		a := denied(&Case{
			Record:     flow.Record{Event: flow.Birth, Verdict: c.verdict, Protocol: identity.TCP, Port: 22},
			Decision:   policy.Decision{Egress: policy.SideDecision{Rule: "shop/no-ssh egress[0]", Reason: "shop/no-ssh egress[0] denies it", Severity: c.severity, Note: "nobody logs in from here"}, Ingress: policy.SideDecision{Verdict: policy.Allow}},
			ClientMode: mode,
		})
		if a.Severity != c.want || a.Verdict != c.verdict {
			t.Errorf("%+v: severity %s, verdict %s", c, a.Severity, a.Verdict)
		}
		if a.Breaks != "rule shop/no-ssh egress[0]" || !strings.HasPrefix(a.Advice, "if it belongs there, narrow rule shop/no-ssh egress[0], which denies it") {
			t.Errorf("breaks %q, advice %q", a.Breaks, a.Advice)
		}
		if !strings.HasSuffix(a.Reason, "; the policy says why: nobody logs in from here") {
			t.Errorf("reason %q", a.Reason)
		}
	}
}
