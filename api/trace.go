package api

import (
	"context"
	"net/http"
)

// PathTrace takes a TraceRequest by POST and answers with a Trace.
const PathTrace = "/v1/trace"

// TraceRequest asks for one packet to be sent. The client is a workload of the daemon's node.
type TraceRequest = ExplainRequest

// Fates of a packet in a place.
const (
	FatePass       = "pass"
	FateDrop       = "drop"
	FateNotReached = "not reached"
	FateNotHere    = "not here" // the place is on another node, or nobody's
)

// Trace is what became of one packet.
type Trace struct {
	Client     string `json:"client"`
	ClientIP   string `json:"clientIP"`
	ClientPort uint16 `json:"clientPort"` // of the probe; an echo request's identifier
	Server     string `json:"server"`
	ServerIP   string `json:"serverIP"`
	Protocol   string `json:"protocol"`
	Port       uint16 `json:"port"`

	// Outcome is FatePass, FateDrop or FateNotReached: of the last place that is here.
	Outcome string      `json:"outcome"`
	Agrees  bool        `json:"agrees"` // every place did what explain predicts
	Steps   []TraceStep `json:"steps"`  // client's namespace, client's guard, server's guard, server's namespace
	Notes   []string    `json:"notes,omitempty"`
}

// TraceStep is what happened in one place, beside what explain predicts.
type TraceStep struct {
	Place    string `json:"place"`
	Fate     string `json:"fate"`
	Alert    bool   `json:"alert,omitempty"`    // passed, and enforce would have dropped it
	Rejected bool   `json:"rejected,omitempty"` // dropped, and who asked was told so
	Table    string `json:"table,omitempty"`    // of the rule that decided; empty where none looked
	Chain    string `json:"chain,omitempty"`
	Rule     string `json:"rule,omitempty"` // as nft prints it
	Comment  string `json:"comment,omitempty"`
	Expected string `json:"expected,omitempty"` // a fate, or "alert" for one that passes with an alert; empty where the place is not here
	Policy   string `json:"policy,omitempty"`   // why that is expected
}

// Trace sends one packet between two workloads and says where it passed and where it died.
func (c *Client) Trace(ctx context.Context, r TraceRequest) (Trace, error) {
	return send[Trace](ctx, c, http.MethodPost, PathTrace, r)
}
