package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// root is where labs keep their state unless told otherwise; a lab elsewhere has a link here.
const root = "/run/bulkhead-lab"

// State is everything about a lab that another process needs to use it or take it down. It is
// written before anything is made, so that a half-made lab can be removed.
type State struct {
	Name      string
	Dir       string
	Bin       string // folder of bulkheadd, bulkhead-lab, bulkhead-cni; the reference plugins are in cni/ inside
	Created   time.Time
	Mode      string // the daemons' defaultMode
	Bulkhead  bool   // false: bridge alone, neither plugin nor daemon
	Joined    bool   // the daemons are a cluster: each is told of its own pods, and hears of others by gossip
	Over6     bool   // and reach each other over IPv6
	Listen    bool   // the agent answers on container ports
	AllowDNS  bool   // the daemons' allowDNS
	Policies  int    // documents given to Up
	LAN       string // namespace of the bridge between nodes
	Outside   Outside
	Nodes     []*Node
	Pods      []*Pod // sorted by namespace and name
	VIPs      []VIP
	Resolvers []netip.Addr // what pods find in resolv.conf
}

// Outside is the network beyond the cluster: one namespace for all hosts there.
type Outside struct {
	NetNS string       // name in /run/netns
	Addrs []netip.Addr // its own on the LAN
}

// Node is a namespace that plays a machine of the cluster.
type Node struct {
	Name     string
	NetNS    string
	Dir      string
	Addrs    []netip.Addr // on the LAN: IPv4, IPv6; then those that it is known by, if others
	Known    []netip.Addr // that it is known by: from its object, from its hostNetwork pods, else on the LAN
	Nets     []Net
	Policies []string `json:"-"`
}

// Socket is where the node's daemon listens.
func (n *Node) Socket() string { return filepath.Join(n.Dir, "api.sock") }

// Net is one bridge of a node with the blocks of its pods. Nearly always a node has one; pods whose
// addresses have nothing in common need more.
type Net struct {
	Bridge             string
	Block4, Block6     netip.Prefix // invalid where no pod has the family
	Gateway4, Gateway6 netip.Addr
}

// Pod is one workload.
type Pod struct {
	Namespace   string
	Name        string
	UID         string
	Node        string
	NetNS       string // the node's for hostNetwork
	ContainerID string
	HostNetwork bool
	Addrs       []netip.Addr // at most one per family, IPv4 first
	Ports       []identity.ContainerPort
	Net         int  // index of its Net on its node
	Detached    bool // it has no namespace now
}

// String is namespace/name.
func (p *Pod) String() string { return p.Namespace + "/" + p.Name }

// Path is where the pod's network namespace is mounted.
func (p *Pod) Path() string { return nsPath(p.NetNS) }

// Path is where the node's network namespace is mounted.
func (n *Node) Path() string { return nsPath(n.NetNS) }

// VIP is one port of a Service on one of its addresses.
type VIP struct {
	Service  string // namespace/name
	Addr     netip.Addr
	Protocol identity.Protocol
	Port     uint16
	PortName string
	Backends []netip.AddrPort // of the same family; none: connections are dropped
}

func (s *State) file() string { return filepath.Join(s.Dir, "state.json") }

// write replaces the state file whole.
func (s *State) write() error {
	b, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	tmp := s.file() + ".new"
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, s.file())
}

// ErrNoLab is the error of Open for a name or folder without a lab.
var ErrNoLab = errors.New("no such lab")

func readState(dir string) (*State, error) {
	b, err := os.ReadFile(filepath.Join(dir, "state.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w; make one with: bulkhead-lab up", dir, ErrNoLab)
	}
	if err != nil {
		return nil, err
	}
	s := &State{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "state.json"), err)
	}
	return s, nil
}

// node finds a node by its name.
func (s *State) node(name string) *Node {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// pod finds a pod by namespace/name, or by name alone where only one has it.
func (s *State) pod(name string) *Pod {
	var byName *Pod
	for _, p := range s.Pods {
		if p.String() == name {
			return p
		}
		if p.Name == name {
			if byName != nil {
				byName = nil
				break
			}
			byName = p
		}
	}
	return byName
}

// namespaces names every namespace of the lab.
func (s *State) namespaces() []string {
	out := []string{s.LAN, s.Outside.NetNS}
	for _, n := range s.Nodes {
		out = append(out, n.NetNS)
	}
	for _, p := range s.Pods {
		if !p.HostNetwork {
			out = append(out, p.NetNS)
		}
	}
	return out
}
