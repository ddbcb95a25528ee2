package api

import (
	"context"
	"net/http"
	"time"
)

// Paths of the cluster.
const (
	PathCluster       = "/v1/cluster"        // GET ClusterStatus
	PathClusterForget = "/v1/cluster/forget" // POST ClusterForget: ClusterForget
	PathClusterForce  = "/v1/cluster/force"  // GET ClusterForce
	PathClusterLeave  = "/v1/cluster/leave"  // POST ClusterLeave: ClusterLeave
)

// ClusterStatus is the cluster as one node sees it.
type ClusterStatus struct {
	Name        string          `json:"name"`
	Node        string          `json:"node"`
	Fingerprint string          `json:"fingerprint"`           // of the key that this node signs with
	Encrypted   string          `json:"encrypted,omitempty"`   // fingerprint of the key that messages are encrypted with; empty: they are not
	Registers   string          `json:"registers"`             // a hash of policies, modes and what else all share: nodes with the same one hold the same
	Books       []ClusterBook   `json:"books"`                 // what this node holds of what each says of itself
	Members     []ClusterMember `json:"members"`               // by name
	Convergence *Convergence    `json:"convergence,omitempty"` // of what was written on this node since its daemon started
	StartWait   *Convergence    `json:"startWait,omitempty"`   // until the nodes of a new workload's peers knew it, where they did in time
	Refused     []string        `json:"refused,omitempty"`     // policies of the cluster that this node cannot take
	Counters    ClusterCounters `json:"counters"`
}

// ClusterCounters are since the daemon's start.
type ClusterCounters struct {
	Refused  uint64 `json:"refused"`  // messages that were not as they must be
	Overflow uint64 `json:"overflow"` // messages that came faster than they were taken
	Unsent   uint64 `json:"unsent"`   // answers that could not be delivered
	Starts   uint64 `json:"starts"`   // of workloads of this node
	Unheard  uint64 `json:"unheard"`  // of these, that went on before all nodes of their peers knew them
}

// ClusterBook is one node's book of one kind as this node holds it. Same version and root: same book.
type ClusterBook struct {
	Owner   string `json:"owner"`
	Kind    string `json:"kind"`
	Version string `json:"version"`
	Entries int    `json:"entries"`
	Root    string `json:"root"`
}

// ClusterMember is one node.
type ClusterMember struct {
	Node        string    `json:"node"`
	Address     string    `json:"address"`
	State       string    `json:"state"` // alive, dead or left
	Since       time.Time `json:"since"`
	Heard       time.Time `json:"heard"` // its last message
	Program     string    `json:"program"`
	Protocol    int       `json:"protocol"`
	Fingerprint string    `json:"fingerprint,omitempty"` // of the key that it signs with
	Workloads   int       `json:"workloads"`             // that it told of

	// What it answered when it was asked just now.
	Behind     uint64 `json:"behind"`               // changes that this node has and it has not
	Ahead      uint64 `json:"ahead"`                // the reverse
	Agrees     bool   `json:"agrees"`               // it holds the same policies and modes
	Generation uint64 `json:"generation,omitempty"` // its own count of changes in force
	Error      string `json:"error,omitempty"`      // why it did not answer
}

// Start is who knew a workload when it began, among the nodes whose workloads have policies that mean it.
type Start struct {
	Nodes   int      `json:"nodes"`             // that were asked
	Known   int      `json:"known"`             // that knew it when its program began
	Seconds float64  `json:"seconds"`           // until the last of those that know it did
	Unknown []string `json:"unknown,omitempty"` // that do not know it yet, as far as was followed; bounded
}

// Convergence is how long writes took from the call until they were in force on each other node, in
// seconds.
type Convergence struct {
	Samples int     `json:"samples"` // latest ones, one for each write and node
	P50     float64 `json:"p50"`
	P99     float64 `json:"p99"`
	Missed  uint64  `json:"missed"` // nodes that did not answer in time
}

// Members are the nodes of a cluster in short.
type Members struct {
	Name  string   `json:"name"`
	Alive int      `json:"alive"` // this node too
	Dead  []string `json:"dead,omitempty"`
}

// ClusterForget removes a node for good: what it tells is not taken any more.
type ClusterForget struct {
	Node string `json:"node"`
	Back bool   `json:"back,omitempty"` // let it come back
}

// ClusterLeave says what a node's daemon tells the others when it is stopped.
type ClusterLeave struct {
	Node string `json:"node"`           // that was asked; set in the answer
	Stay bool   `json:"stay,omitempty"` // nothing, as is usual: it will be back
}

// ClusterForce is where what this node has in force is in force, too.
type ClusterForce struct {
	Generation uint64                 `json:"generation"` // of this node
	Nodes      []NodeForce            `json:"nodes"`      // all but the left ones, this one too, by name
	Policies   map[string]PolicyForce `json:"policies"`   // by name as ApplyResult has it: "Policy shop/cart"
}

// PolicyForce is where one policy's present text is in force.
type PolicyForce struct {
	Nodes     int `json:"nodes"`
	OfNodes   int `json:"ofNodes"`
	Workloads int `json:"workloads"` // that run on these nodes, and hold what is in force there
}

// ClusterForce asks all nodes what they have in force.
func (c *Client) ClusterForce(ctx context.Context) (ClusterForce, error) {
	return get[ClusterForce](ctx, c, PathClusterForce, nil)
}

// ClusterStatus is the cluster as the daemon's node sees it.
func (c *Client) ClusterStatus(ctx context.Context) (ClusterStatus, error) {
	return get[ClusterStatus](ctx, c, PathCluster, nil)
}

// ClusterForget removes a node for good, on all nodes.
func (c *Client) ClusterForget(ctx context.Context, r ClusterForget) (ClusterForget, error) {
	return send[ClusterForget](ctx, c, http.MethodPost, PathClusterForget, r)
}

// ClusterLeave has a node say goodbye when its daemon is stopped.
func (c *Client) ClusterLeave(ctx context.Context, r ClusterLeave) (ClusterLeave, error) {
	return send[ClusterLeave](ctx, c, http.MethodPost, PathClusterLeave, r)
}

// NodeForce is whether a change is in force on a node.
type NodeForce struct {
	Node      string  `json:"node"`
	InForce   bool    `json:"inForce"`
	Workloads int     `json:"workloads"`         // that hold it
	Of        int     `json:"of"`                // that run there
	Seconds   float64 `json:"seconds,omitempty"` // from the call until it was known to be
	Error     string  `json:"error,omitempty"`   // why it is not
}
