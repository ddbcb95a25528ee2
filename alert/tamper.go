package alert

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Tampering is something that was done to what we hold in the kernel, as the firewall noticed it.
type Tampering struct {
	Time     time.Time
	Workload *identity.Workload // whose namespace or guard; nil: the node's own
	What     string             // what happened, to follow "in shop/web-1: ": "table inet evil was added"
	Table    string             // "inet bulkhead", where one is concerned
	Process  string             // name of the process that did it, where the kernel tells
	PID      int                // of that process, as the node numbers it; 0: not known
	Harmless bool               // what we hold is as it was: it was refused, or added beside
	Others   []string           // processes that may have done it, where it is not known which
	Why      string             // why it is odd; empty: What says so
	Advice   string             // what to do; empty: the usual
	Severity Severity           // default critical
}

// Alert says it to people.
func (t Tampering) Alert(node string) Alert {
	a := Alert{Kind: Tamper, Severity: Critical, Time: t.Time, First: t.Time, Last: t.Time, Count: 1, Node: node,
		Client: Party{Service: "node"}, Verdict: policy.Allow}
	where := "on the node"
	if w := t.Workload; w != nil {
		a.Client = Party{Service: w.Service.String(), Workload: w.Namespace + "/" + w.Name}
		if len(w.Addrs) > 0 {
			a.Client.Addr = w.Addrs[0]
		}
		where = "in " + a.Client.Workload
	}
	a.Reason = where + ": " + t.What
	if t.Why != "" {
		a.cause = where + ": " + t.What
	}
	switch {
	case t.Process != "" || t.PID != 0:
		a.cause = where + ": " + t.What // in a loop each has another number
		a.Reason += fmt.Sprintf(", by %s (pid %d)", orUnknown(t.Process), t.PID)
	case len(t.Others) > 0:
		a.Reason += "; in there now: " + strings.Join(t.Others, ", ")
	}
	if t.Why != "" {
		a.Reason += "; " + t.Why
	}
	if t.Harmless {
		a.Verdict = policy.Deny
		a.Reason += "; our rules were not changed"
	} else {
		a.Reason += "; our rules are being put back"
	}
	a.Breaks = t.Table
	if t.Table != "" {
		a.Breaks = "table " + t.Table
	}
	a.Advice = cmp.Or(t.Advice, "find out what runs "+where+" with CAP_NET_ADMIN, and drop that capability")
	a.Severity = cmp.Or(t.Severity, a.Severity)
	return a
}

func orUnknown(process string) string {
	if process == "" {
		return "an unknown process"
	}
	return process
}
