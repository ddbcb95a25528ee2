package api

import (
	"encoding/json"
	"time"
)

// DefaultSocket is where bulkheadd listens unless told otherwise.
const DefaultSocket = "/run/bulkhead/api.sock"

// Paths of the API. A stream is asked for with ?follow=true and answered with server-sent events,
// one JSON object each.
const (
	PathStatus    = "/v1/status"    // GET Status
	PathWorkloads = "/v1/workloads" // GET []Workload
	PathRules     = "/v1/rules"     // GET ?workload=ID|ns/name: text/plain nft syntax, addresses named; ?guard=true too
	PathFlows     = "/v1/flows"     // GET []Flow, newest last; ?follow, ?service, ?verdict, ?limit (FlowQuery)
	PathGraph     = "/v1/graph"     // GET Graph
	PathPolicies  = "/v1/policies"  // GET []Policy; POST ApplyRequest: ApplyResult; DELETE ?kind=&namespace=&name=
	PathGenerate  = "/v1/generate"  // GET ?namespace=&service=&format=native|kubernetes: text/yaml
	PathPreview   = "/v1/preview"   // POST ApplyRequest: Preview, nothing changes
	PathHistory   = "/v1/history"   // GET []Generation, newest first; ?generation gives that one with all its changes, ?limit
	PathConfirm   = "/v1/confirm"   // POST ConfirmRequest: Pending, what was confirmed
	PathModes     = "/v1/modes"     // GET []ServiceMode; PUT ServiceMode (Service "*": all services and the default)
	PathAlerts    = "/v1/alerts"    // GET []alert.Alert as JSON (raw here: the plugin must not link alert); ?follow, ?kind, ?limit
	PathExplain   = "/v1/explain"   // POST ExplainRequest: Explanation
	PathCNI       = "/v1/cni"       // POST CNIRequest; 204, or Error
)

// Error is the body of every answer that is not 2xx.
type Error struct {
	Status  int    `json:"-"`
	Code    string `json:"code"`              // one of the constants in errors.go
	Message string `json:"message"`           // a sentence with file:line:column where there is one
	Details string `json:"details,omitempty"` // the cause
}

func (e *Error) Error() string {
	if e.Details == "" {
		return e.Message
	}
	return e.Message + ": " + e.Details
}

// CNIRequest is what the plugin tells the daemon.
type CNIRequest struct {
	Command       string            `json:"command"` // ADD, CHECK, DEL, GC, STATUS
	ContainerID   string            `json:"containerID,omitempty"`
	NetNS         string            `json:"netns,omitempty"` // path; empty for a DEL without one
	IfName        string            `json:"ifName,omitempty"`
	Args          map[string]string `json:"args,omitempty"` // CNI_ARGS, parsed
	Network       string            `json:"network,omitempty"`
	RuntimeConfig json.RawMessage   `json:"runtimeConfig,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"` // where the runtime put labels in the request itself
	Interfaces    []CNIInterface    `json:"interfaces,omitempty"`
	Resolvers     []string          `json:"resolvers,omitempty"`        // dns.nameservers of prevResult and of the dns capability
	Valid         []CNIAttachment   `json:"validAttachments,omitempty"` // GC; always sent with GC, empty means none is valid
}

// CNIInterface is one interface of prevResult that lies in the container's namespace, with the
// addresses that prevResult gives it.
type CNIInterface struct {
	Name     string   `json:"name"`
	MAC      string   `json:"mac,omitempty"`
	Host     string   `json:"host,omitempty"`  // the host's end of the veth as prevResult names it; the daemon verifies it
	Addrs    []string `json:"addrs,omitempty"` // "10.88.0.5/24"
	Gateways []string `json:"gateways,omitempty"`
}

// CNIAttachment is one of GC's cni.dev/valid-attachments.
type CNIAttachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

// Status is the daemon at a glance.
type Status struct {
	Version      string         `json:"version"`
	Node         string         `json:"node"`
	PID          int            `json:"pid"`
	Started      time.Time      `json:"started"`
	Kernel       string         `json:"kernel"`
	Workloads    int            `json:"workloads"`
	Services     int            `json:"services"`
	Policies     int            `json:"policies"`
	Edges        int            `json:"edges"`
	Modes        map[string]int `json:"modes"` // services per mode
	Counters     Counters       `json:"counters"`
	Warnings     []string       `json:"warnings,omitempty"`     // protection that is reduced, one sentence each
	PolicyErrors []string       `json:"policyErrors,omitempty"` // files of the watched directory that are refused, with file:line:column
	Generation   uint64         `json:"generation"`             // of policies and modes
	Shadows      int            `json:"shadows,omitempty"`      // policies that are only judged beside what is in force
	Pending      *Pending       `json:"pending,omitempty"`      // a change that waits for confirmation
	Expiring     []string       `json:"expiring,omitempty"`     // rules that end within a week
	Cluster      *Members       `json:"cluster,omitempty"`      // nil: the node is alone
}

// Counters are since the daemon's start.
type Counters struct {
	Records      uint64 `json:"records"`      // flow log messages decoded
	Lost         uint64 `json:"lost"`         // flow log messages that the kernel could not deliver
	Malformed    uint64 `json:"malformed"`    // messages that did not decode
	Forged       uint64 `json:"forged"`       // messages by a rule of the container's own that looked like ours
	Overflow     uint64 `json:"overflow"`     // births not put in a full seen set
	Denied       uint64 `json:"denied"`       // connections denied
	WouldDeny    uint64 `json:"wouldDeny"`    // connections that mode alert let through
	Alerts       uint64 `json:"alerts"`       // alerts sent, folded ones not counted
	Transactions uint64 `json:"transactions"` // nftables transactions committed
}

// Workload is one row of `bulkhead workloads`.
type Workload struct {
	ID        string            `json:"id"`
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Service   string            `json:"service"`
	Node      string            `json:"node,omitempty"`
	Local     bool              `json:"local"`
	Mode      string            `json:"mode"`
	Addrs     []string          `json:"addrs"`
	Labels    map[string]string `json:"labels"`

	NamespaceLabels map[string]string `json:"namespaceLabels,omitempty"`
	Ports           []string          `json:"ports,omitempty"` // that its containers declare: "http=TCP/80", "UDP/53"
	HostNetwork     bool              `json:"hostNetwork,omitempty"`

	NetNS     string    `json:"netns,omitempty"`
	Guarded   bool      `json:"guarded"`          // every interface has a guard on its host end
	Isolated  []string  `json:"isolated"`         // "ingress", "egress"
	Entries   int       `json:"entries"`          // allowed (peer, protocol, port) in force
	Denied    int       `json:"denied,omitempty"` // (peer, protocol, port) that rules deny, in force
	Since     time.Time `json:"since"`
	StartSeen bool      `json:"startSeen"`       // false: it ran before we saw it
	Start     *Start    `json:"start,omitempty"` // in a cluster: who knew it when it began
	Applied   time.Time `json:"applied"`         // last transaction
	Error     string    `json:"error,omitempty"`
}

// Flow is one row of `bulkhead flows`: a connection, or what repeats of it were folded to.
type Flow struct {
	Time      time.Time `json:"time"`
	Direction string    `json:"direction"`
	Workload  string    `json:"workload"` // namespace/name of the workload that reported
	Client    string    `json:"client"`   // service, "node", "dns", network or address
	ClientIP  string    `json:"clientIP"`
	Server    string    `json:"server"`
	ServerIP  string    `json:"serverIP"`
	Name      string    `json:"serverName,omitempty"` // DNS name under which the client knows the server's address
	Protocol  string    `json:"protocol"`
	Port      uint16    `json:"port"`
	Verdict   string    `json:"verdict"`
	OnDeny    string    `json:"onDeny,omitempty"` // how a denial was told: "reject" or "drop"
	Rule      string    `json:"rule,omitempty"`   // which rule said so
	Count     uint64    `json:"count"`
	Event     string    `json:"event"` // birth, denied, spoof, raw
}

// FlowQuery narrows flows down. The zero value asks for all that the daemon remembers.
type FlowQuery struct {
	Service string // flows with this service at either end
	Verdict string // allow, alert or deny
	Limit   int    // the newest so many; 0 is the daemon's default. When following: how many past ones come first
}

// Graph is the service graph.
type Graph struct {
	Nodes []GraphNode `json:"nodes"`
	Edges []Edge      `json:"edges"`
}

// GraphNode is one service or named peer.
type GraphNode struct {
	Name      string `json:"name"`
	Kind      string `json:"kind"` // service, node, dns, world, network
	Workloads int    `json:"workloads"`
	Mode      string `json:"mode,omitempty"`
}

// Edge is flows folded to service, service, protocol and port.
type Edge struct {
	Client   string    `json:"client"`
	Server   string    `json:"server"`
	Protocol string    `json:"protocol"`
	Port     uint16    `json:"port"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	Count    uint64    `json:"count"`
	Bytes    uint64    `json:"bytes"`
	Denied   uint64    `json:"denied"`
	Clients  []string  `json:"clients"` // workloads seen, "namespace/name", bounded
	Servers  []string  `json:"servers"`
	VIP      string    `json:"vip,omitempty"`   // "10.96.0.7:80" where it was dialled through one
	Names    []string  `json:"names,omitempty"` // DNS names under which clients knew an address of the world
}

// ServiceMode is a service's mode.
type ServiceMode struct {
	Service   string   `json:"service"` // "namespace/name", "*" for all and the default
	Mode      string   `json:"mode"`
	Isolated  []string `json:"isolated,omitempty"`
	Workloads int      `json:"workloads,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
}

// ExplainRequest asks for a verdict. Ends are namespace/service, namespace/workload, "node",
// "dns", or an address.
type ExplainRequest struct {
	Client   string `json:"client"`
	Server   string `json:"server"`
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port"`
	PortName string `json:"portName,omitempty"`
}

// Explanation is a verdict with its reasons.
type Explanation struct {
	Verdict string      `json:"verdict"`          // what happens to the packet: allow, alert or deny
	Policy  string      `json:"policy"`           // what policy says, whatever the modes: allow or deny
	OnDeny  string      `json:"onDeny,omitempty"` // how a denial is told: "reject" or "drop"
	Client  string      `json:"client"`
	Server  string      `json:"server"`
	Egress  ExplainSide `json:"egress"`
	Ingress ExplainSide `json:"ingress"`
	Seen    *Edge       `json:"seen,omitempty"`
	Notes   []string    `json:"notes,omitempty"` // VIP backends, named ports, what one change would allow it
}

// ExplainSide is one end's part.
type ExplainSide struct {
	Workload string   `json:"workload,omitempty"`
	Mode     string   `json:"mode,omitempty"`
	Isolated bool     `json:"isolated"`
	Verdict  string   `json:"verdict"`
	Rule     string   `json:"rule,omitempty"`
	Reason   string   `json:"reason"`
	OnDeny   string   `json:"onDeny,omitempty"`   // where it is denied: "reject" or "drop"; asked of files, only where a policy says it
	Policies []string `json:"policies,omitempty"` // that select this end in this direction

	Rules []ExplainRule `json:"rules,omitempty"` // that decide, match or nearly match
	Fix   *ExplainFix   `json:"fix,omitempty"`   // one change that would allow what is denied
}

// ExplainRule is how one rule stands to a connection.
type ExplainRule struct {
	Rule   string `json:"rule"`             // "shop/cart ingress[0]"
	Source string `json:"source,omitempty"` // "shop.yaml:14:5"
	Action string `json:"action"`           // allow, deny or pass
	Match  string `json:"match"`            // decides, matches, or near
	Why    string `json:"why"`
}

// ExplainFix is one change to a policy.
type ExplainFix struct {
	Text string `json:"text"`
	YAML string `json:"yaml,omitempty"`
}
