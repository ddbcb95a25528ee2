package alert

import (
	"net/netip"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Kind is what an alert is about.
type Kind string

const (
	NewEdge   Kind = "new-edge"   // a connection that no baseline knows and no policy denies
	DeniedBy  Kind = "denied"     // a connection that policy denies, or in mode alert would deny
	PortScan  Kind = "port-scan"  // one client tried many ports or many hosts in a short time
	Spoof     Kind = "spoof"      // a frame with a sender address or MAC that is not the workload's
	RawSocket Kind = "raw-socket" // a frame that went round the namespace's rules and was stopped at the guard
	Tamper    Kind = "tamper"     // somebody changed or tried to change what we hold in the kernel
	Shadow    Kind = "shadow"     // a connection that passed, and that a shadow policy would deny
	Expired   Kind = "expired"    // a rule of a policy ended by itself
	Bound     Kind = "bound"      // a workload would hold more than it may: the change was refused
	Cluster   Kind = "cluster"    // a member of the cluster did what no honest one does, or two claim the same
)

// Severity orders alerts.
type Severity string

const (
	Low      Severity = "low"
	Medium   Severity = "medium"
	High     Severity = "high"
	Critical Severity = "critical"
)

// Party is one end of what happened.
type Party struct {
	Service  string     `json:"service"`            // "namespace/name", "node", "dns", "world" or a network's name
	Workload string     `json:"workload,omitempty"` // "namespace/pod"
	Addr     netip.Addr `json:"ip"`
	Name     string     `json:"name,omitempty"` // DNS name under which the client knows the address, the first of several
}

// Alert is one JSON line. Its key for folding is everything but times and Count.
type Alert struct {
	Time     time.Time         `json:"time"` // when it was sent
	Kind     Kind              `json:"kind"`
	Severity Severity          `json:"severity"`
	Client   Party             `json:"client"`
	Server   Party             `json:"server"`
	Protocol identity.Protocol `json:"protocol,omitempty"`
	Port     uint16            `json:"port,omitempty"`
	Verdict  policy.Verdict    `json:"verdict"`          // deny: it was stopped; alert: let through, policy would deny; allow: let through
	Reason   string            `json:"reason"`           // a sentence: why this is odd
	Breaks   string            `json:"breaks,omitempty"` // policy or baseline it breaks: "policy default/cartservice", "baseline default/cartservice"
	Advice   string            `json:"advice,omitempty"` // what to do
	Count    uint64            `json:"count"`            // repeats folded into this one, at least 1
	First    time.Time         `json:"first"`
	Last     time.Time         `json:"last"`
	Ports    int               `json:"ports,omitempty"` // port-scan: distinct (server, port) tried
	Node     string            `json:"node"`

	cause string // what equal alerts have in common, where that is not the reason
}
