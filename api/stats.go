package api

import "time"

// PolicyStats is what a policy in force was used for, by connections of this node's workloads.
type PolicyStats struct {
	Since time.Time   `json:"since"` // when counting began: the policy's text took force, or this node first had it
	Rules []RuleStats `json:"rules,omitempty"`
	Rest  Hits        `json:"rest"` // what no rule allowed where the policy isolates
}

// RuleStats is what one rule was used for.
type RuleStats struct {
	Direction string `json:"direction"` // ingress or egress
	Index     int    `json:"index"`     // among the policy's rules of that direction
	Name      string `json:"name,omitempty"`
	Action    string `json:"action"` // allow, deny or pass
	Hits
}

// Hits are connections (datagrams for UDP) that something decided. Repeats of a known one are read
// from the kernel's counters every few seconds.
type Hits struct {
	Allowed   uint64     `json:"allowed"`
	Denied    uint64     `json:"denied"`
	WouldDeny uint64     `json:"wouldDeny,omitempty"` // denied by policy and let through by the mode
	Last      *time.Time `json:"last,omitempty"`      // absent: never
}
