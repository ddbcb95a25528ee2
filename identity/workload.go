package identity

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Labels are the key/value pairs of a workload or of its namespace.
type Labels map[string]string

// Service is what workloads that share an identity are called: namespace and the name that their
// labels give (see [ServiceOf]). The zero value is "no service".
type Service struct {
	Namespace string
	Name      string
}

// String gives "namespace/name".
func (s Service) String() string { return s.Namespace + "/" + s.Name }

// Source says where a workload's data came from. A weaker source never overwrites a stronger one
// (ARCHITECTURE 8); the order of the constants is the order of strength.
type Source uint8

const (
	SourceInventory Source = iota + 1 // a manifest in the inventory folder
	SourceGossip                      // another node said so
	SourceKube                        // a Kubernetes API said so
	SourceCNI                         // the runtime asked us to attach it: it runs here
)

// ContainerPort is a port that a workload declares, so that policies can use its name.
type ContainerPort struct {
	Name     string
	Protocol Protocol
	Port     uint16
}

// Workload is one container network namespace, on this node or another, as policy sees it.
type Workload struct {
	ID              string // unique in the cluster: the container id that CNI gave, or "inventory:ns/name"
	Namespace       string // Kubernetes namespace; "default" where the runtime has none
	Name            string // pod or container name
	Node            string // node it runs on; empty: not known
	Labels          Labels
	NamespaceLabels Labels // always holds kubernetes.io/metadata.name
	Service         Service
	Addrs           []netip.Addr // unmapped, without zone; empty once it has ended
	Ports           []ContainerPort
	HostNetwork     bool // shares the node's namespace: cannot be told apart by address
	Local           bool // it runs on this node and we hold its namespace
	Source          Source
	Since           time.Time // from when on its addresses are its own
}

// NodeInfo is what a node's object says of it.
type NodeInfo struct {
	Labels Labels
	Addrs  []netip.Addr
}

// same says whether two workloads are alike in all that is known of them.
func (w *Workload) same(o *Workload) bool {
	return w.ID == o.ID && w.Namespace == o.Namespace && w.Name == o.Name && w.Node == o.Node && w.Service == o.Service &&
		w.HostNetwork == o.HostNetwork && w.Local == o.Local && w.Source == o.Source && w.Since.Equal(o.Since) &&
		slices.Equal(w.Addrs, o.Addrs) && slices.Equal(w.Ports, o.Ports) &&
		maps.Equal(w.Labels, o.Labels) && maps.Equal(w.NamespaceLabels, o.NamespaceLabels)
}

// PeerKind tells what the other end of a flow is. The zero value is the least trusted.
type PeerKind uint8

const (
	World    PeerKind = iota // an address nobody claims
	Pod                      // a workload
	Node                     // this node itself
	Resolver                 // a resolver of the container's resolv.conf that is no known workload
	VIP                      // a Service address whose backends are not known
	Network                  // a named network of the configuration
)

func (k PeerKind) String() string {
	return [...]string{"world", "workload", "node", "dns", "vip", "network"}[k]
}

// Peer is an address with its name.
type Peer struct {
	Kind     PeerKind
	Addr     netip.Addr
	Workload *Workload // for Pod; never written to after it was published
	Network  string    // for Network: its name; for VIP: namespace/name of the Service
}

// String names the peer for people: the service, "node", "dns", the network, or the address.
func (p Peer) String() string {
	switch p.Kind {
	case Pod:
		return p.Workload.Service.String()
	case Network, VIP:
		return p.Network
	case World:
		return p.Addr.String()
	}
	return p.Kind.String()
}

// KubeService is a Service object: virtual addresses in front of the workloads it selects.
type KubeService struct {
	Namespace string
	Name      string
	Selector  Labels
	Addrs     []netip.Addr // clusterIPs, externalIPs, load balancer addresses
	Ports     []ServicePort
}

// ServicePort is one port of a Service. The backend's port is Target, or the container port named
// TargetName where that is set.
type ServicePort struct {
	Name       string
	Protocol   Protocol
	Port       uint16
	Target     uint16
	TargetName string
}
