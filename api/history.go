package api

import "time"

// Pending is a generation that is undone at its deadline unless confirmed.
type Pending struct {
	Generation uint64    `json:"generation"`
	Deadline   time.Time `json:"deadline"`
	Seconds    float64   `json:"seconds"` // until then
	Who        string    `json:"who"`
}

// ConfirmRequest keeps what waits for confirmation.
type ConfirmRequest struct {
	Generation uint64 `json:"generation,omitempty"` // only that one; 0: whichever waits
}

// Generation is one change of policies and modes that took force.
type Generation struct {
	Number  uint64    `json:"number"`
	Time    time.Time `json:"time"`
	Who     string    `json:"who"`           // "root (pid 4711)", "bulkheadd" for what it does by itself
	UID     *uint32   `json:"uid,omitempty"` // of the caller, as the kernel knows it
	PID     int32     `json:"pid,omitempty"`
	Cause   string    `json:"cause"`             // apply, delete, promote, rollback, not confirmed, mode, policyDir, …
	Message string    `json:"message,omitempty"` // as given with the change
	State   string    `json:"state,omitempty"`   // pending, confirmed, rolled back; empty: nobody had to confirm it
	Files   []string  `json:"files,omitempty"`   // as the caller named them, bounded
	Created int       `json:"created"`
	Changed int       `json:"changed"`
	Removed int       `json:"removed"`
	Modes   int       `json:"modes"` // services whose mode changed

	Changes []GenerationChange `json:"changes,omitempty"` // only where one generation was asked for
}

// GenerationChange is what one generation did to one policy, or to a service's mode.
type GenerationChange struct {
	Name string `json:"name"` // "Policy shop/cart", "Policy shop/cart (shadow)", "mode of shop/cart"
	What string `json:"what"` // created, changed, removed; for a mode "learn → enforce"
	File string `json:"file,omitempty"`
}

// Shadow is what a shadow policy has seen since it was applied, in connections (datagrams for UDP)
// of the workloads of this node that it selects. What is in force is judged as if all modes were
// enforce.
type Shadow struct {
	Since   time.Time    `json:"since"`
	Passed  uint64       `json:"passed"`            // allowed by what is in force, and with all shadows in force
	Denied  uint64       `json:"denied"`            // allowed by what is in force; would be denied
	Opened  uint64       `json:"opened"`            // denied by what is in force; would be allowed
	Refused uint64       `json:"refused"`           // denied by both
	Edges   []ShadowEdge `json:"edges,omitempty"`   // where there is a difference, most connections first; bounded
	Beyond  uint64       `json:"beyond,omitempty"`  // differences counted above that found Edges full
	After   uint64       `json:"after,omitempty"`   // it takes force by itself on so many connections
	Missing []string     `json:"missing,omitempty"` // what the evidence lacks for promote
}

// ShadowEdge is one edge whose verdict a shadow changes.
type ShadowEdge struct {
	Client    string    `json:"client"`
	Server    string    `json:"server"`
	Protocol  string    `json:"protocol"`
	Port      uint16    `json:"port"`
	Direction string    `json:"direction"` // whose end the shadow judges: egress the client's, ingress the server's
	Verdict   string    `json:"verdict"`   // what it would be: deny or allow
	Count     uint64    `json:"count"`
	First     time.Time `json:"first"`
	Last      time.Time `json:"last"`
	Examples  []string  `json:"examples"` // "shop/web-1 (10.88.0.2) → shop/db-1 (10.88.0.4)", bounded
	Reason    string    `json:"reason"`
}
