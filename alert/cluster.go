package alert

import (
	"fmt"
	"time"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Misconduct is something that a member of the cluster, or somebody who holds the cluster's key, tried.
// It had no effect here.
type Misconduct struct {
	Time  time.Time
	Other string // the node that it came from, by its own word; empty: not known
	What  string // what it was, as a sentence without its end
	Count uint64 // how often since it was last told of; 0 stands for once
	// Mistaken says that an honest node may do it by a wrong configuration.
	Mistaken bool
}

// Alert says it to people.
func (m Misconduct) Alert(node string) Alert {
	a := Alert{Kind: Cluster, Severity: Critical, Time: m.Time, First: m.Time, Last: m.Time, Count: max(m.Count, 1), Node: node,
		Client: Party{Service: "node"}, Verdict: policy.Deny}
	from := "somebody in the cluster"
	if m.Other != "" {
		from = fmt.Sprintf("node %q", m.Other)
	}
	a.Reason = fmt.Sprintf("from %s: %s; refused, nothing was changed", from, m.What)
	a.Advice = "treat that node as taken over until you know better: look at it, replace the cluster's key without it (bulkhead cluster keys), then bulkhead cluster forget"
	if m.Mistaken {
		a.Severity = High
		a.Advice = "compare the configuration of the nodes that it names; if it is right, treat the claimant as taken over"
	}
	return a
}
