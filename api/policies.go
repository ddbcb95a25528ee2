package api

import "time"

// Policy is one policy in force, or a shadow.
type Policy struct {
	Kind      string     `json:"kind"` // Policy, NetworkPolicy, …
	Namespace string     `json:"namespace,omitempty"`
	Name      string     `json:"name"`
	Mode      string     `json:"mode"`    // enforce: in force; shadow: only judged beside what is in force
	Source    string     `json:"source"`  // "api", or the file of the watched directory
	Selects   []string   `json:"selects"` // services
	Types     []string   `json:"types"`   // Ingress, Egress
	Applied   time.Time  `json:"applied"`
	Expires   *time.Time `json:"expires,omitempty"` // when the next of its rules ends by itself
	Expired   []string   `json:"expired,omitempty"` // rules that have ended
	Shadow    *Shadow    `json:"shadow,omitempty"`  // what a shadow has seen
	YAML      string     `json:"yaml"`

	Stats *PolicyStats `json:"stats,omitempty"` // what a policy in force was used for on this node
	Force *PolicyForce `json:"force,omitempty"` // in a cluster, where somebody asked the other nodes
}

// File is one file's name, for messages, and its text.
type File struct {
	Name string `json:"name"`
	Data string `json:"data"`
}

// What an [ApplyRequest] does.
const (
	DoApply    = ""         // put Files in force
	DoDelete   = "delete"   // take the policies of Files and Names out
	DoPromote  = "promote"  // put the shadows of Names in force
	DoRollback = "rollback" // go back to a generation
)

// ApplyRequest is one change of policies and modes: all of it takes force, or nothing.
type ApplyRequest struct {
	Do    string       `json:"do,omitempty"` // one of the Do constants
	Files []File       `json:"files,omitempty"`
	Names []PolicyName `json:"names,omitempty"` // delete, promote

	Shadow bool   `json:"shadow,omitempty"` // apply: as shadows, whatever the files say; delete: only shadows
	Prune  bool   `json:"prune,omitempty"`  // apply: remove policies of source "api" that are not in Files
	Mode   string `json:"mode,omitempty"`   // apply: set the services that the files select to this mode, in the same step

	// Services, with Mode, are what goes to that mode instead; "*" is all of them. Preview takes
	// them without Files: which seen edges change their verdict with the mode alone.
	Services []string `json:"services,omitempty"`

	After uint64 `json:"after,omitempty"` // promote: not now, but by itself on evidence of so many connections
	Now   bool   `json:"now,omitempty"`   // promote: whatever the evidence

	Generation *uint64 `json:"generation,omitempty"` // rollback: to it; absent: undo the newest, or the one that waits for confirmation
	KeepFiles  bool    `json:"keepFiles,omitempty"`  // rollback: leave what the watched directory holds as it is

	ConfirmWithin string `json:"confirmWithin,omitempty"` // a span ("60s"): undone by itself unless confirmed until then
	Message       string `json:"message,omitempty"`       // why, for the history
	Wait          string `json:"wait,omitempty"`          // a span: the answer waits so long until all nodes of the cluster have it in force
}

// PolicyName names a policy. Kind and namespace may be left out where the name is the only one.
type PolicyName struct {
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// ApplyResult says what changed. Shadows are named with " (shadow)" behind.
type ApplyResult struct {
	Created    []string `json:"created"`
	Changed    []string `json:"changed"`
	Unchanged  []string `json:"unchanged"`
	Removed    []string `json:"removed"`
	Modes      []string `json:"modes,omitempty"` // "shop/cart: learn → enforce"
	Generation uint64   `json:"generation"`
	Workloads  int      `json:"workloads"` // local workloads that hold the new generation
	Warnings   []string `json:"warnings,omitempty"`
	Pending    *Pending `json:"pending,omitempty"` // it waits for confirmation
	Missing    []string `json:"missing,omitempty"` // promote with After: what the evidence lacks still

	Nodes []NodeForce `json:"nodes,omitempty"` // with Wait: how the other nodes of the cluster stand
}

// Preview is what a change would do to what was seen.
type Preview struct {
	Created []string     `json:"created"`
	Changed []string     `json:"changed"`
	Removed []string     `json:"removed"`
	Modes   []string     `json:"modes,omitempty"` // "shop/cart: learn → enforce"
	Breaks  []PreviewRow `json:"breaks"`          // seen edges that would be denied and are not now
	Opens   []PreviewRow `json:"opens"`           // seen edges that would be allowed and are not now

	Unused   []string `json:"unused,omitempty"` // allowing rules of created and changed policies that no seen edge needs
	Warnings []string `json:"warnings,omitempty"`
}

// PreviewRow is one seen edge whose verdict changes.
type PreviewRow struct {
	Edge
	Reason string `json:"reason"`
	Rule   string `json:"rule,omitempty"` // that denies or allows; empty: none does
}
