package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// endpoint is one end of a probe: a namespace and what is known of its address.
type endpoint struct {
	netns string
	name  string
	addrs []netip.Addr // one per family that it has
	pod   *Pod         // for a pod
	vip   bool         // a Service's address: no host
	out   bool         // on the outside network
	fixed bool         // a client must send from the address: it was asked for, or is one of a node's
}

// shot is a probe made concrete.
type shot struct {
	netns  string     // the client's
	source netip.Addr // invalid: the kernel chooses
	server netip.AddrPort
	proto  identity.Protocol
	doors  []door // where somebody must listen for an answer to be possible

	foreign bool // who listens there is another program: a connection alone says that it is allowed
}

// directory names every end of a lab. It is made once and only read.
type directory struct {
	state   *State
	pods    map[string]*Pod
	byAddr  map[netip.Addr]endpoint
	byNetNS map[string]*Pod // pods with a namespace of their own
	vips    map[netip.Addr][]VIP
	byVIP   map[string]netip.Addr // Service's namespace/name → its first address
}

func newDirectory(s *State) *directory {
	d := &directory{state: s, pods: map[string]*Pod{}, byAddr: map[netip.Addr]endpoint{},
		byNetNS: map[string]*Pod{}, vips: map[netip.Addr][]VIP{}, byVIP: map[string]netip.Addr{}}
	for _, n := range s.Nodes {
		for _, a := range n.Addrs {
			d.byAddr[a] = endpoint{netns: n.NetNS, name: n.Name, addrs: []netip.Addr{a}}
		}
		for _, net := range n.Nets {
			for _, a := range []netip.Addr{net.Gateway4, net.Gateway6} {
				if a.IsValid() {
					d.byAddr[a] = endpoint{netns: n.NetNS, name: n.Name, addrs: []netip.Addr{a}}
				}
			}
		}
	}
	for _, a := range s.Outside.Addrs {
		d.byAddr[a] = endpoint{netns: s.Outside.NetNS, name: "outside/" + a.String(), addrs: []netip.Addr{a}, out: true}
	}
	for _, p := range s.Pods {
		d.pods[p.String()] = p
		if !p.HostNetwork {
			d.byNetNS[p.NetNS] = p
		}
		for _, a := range p.Addrs {
			d.byAddr[a] = endpoint{netns: p.NetNS, name: p.String(), addrs: []netip.Addr{a}, pod: p}
		}
	}
	for _, v := range s.VIPs {
		d.vips[v.Addr] = append(d.vips[v.Addr], v)
		if _, have := d.byVIP[v.Service]; !have {
			d.byVIP[v.Service] = v.Addr
		}
	}
	return d
}

// find names an end: "namespace/pod", an address, a node, a pod's bare name, a Service.
func (d *directory) find(name string) (endpoint, error) {
	if p := d.pods[name]; p != nil {
		return endpoint{netns: p.NetNS, name: name, addrs: p.Addrs, pod: p, fixed: p.HostNetwork}, nil
	}
	if a, err := netip.ParseAddr(name); err == nil {
		a = a.Unmap()
		if e, ok := d.byAddr[a]; ok {
			e.fixed = true
			return e, nil
		}
		if _, ok := d.vips[a]; ok {
			return endpoint{name: name, addrs: []netip.Addr{a}, vip: true}, nil
		}
		return endpoint{netns: d.state.Outside.NetNS, name: "outside/" + name, addrs: []netip.Addr{a}, out: true, fixed: true}, unicast(a)
	}
	if n := d.state.node(name); n != nil {
		return endpoint{netns: n.NetNS, name: name, addrs: n.Known, fixed: true}, nil
	}
	if a, ok := d.byVIP[name]; ok {
		return endpoint{name: name, addrs: []netip.Addr{a}, vip: true}, nil
	}
	if p := d.state.pod(name); p != nil {
		return endpoint{netns: p.NetNS, name: p.String(), addrs: p.Addrs, pod: p}, nil
	}
	return endpoint{}, fmt.Errorf("%s: no pod, node or address of this lab", name)
}

// resolve makes a probe concrete. Where both ends speak both families and names were given, IPv4
// is taken.
func (d *directory) resolve(p *Probe) (shot, []netip.Addr, error) {
	proto, err := p.protocol()
	if err != nil {
		return shot{}, nil, err
	}
	client, err := d.find(p.Client)
	if err != nil {
		return shot{}, nil, fmt.Errorf("client: %w", err)
	}
	if client.vip {
		return shot{}, nil, fmt.Errorf("client: %s: a Service's address opens no connections", p.Client)
	}
	server, err := d.find(p.Server)
	if err != nil {
		return shot{}, nil, fmt.Errorf("server: %w", err)
	}
	from, to, err := family(client, server)
	if err != nil {
		return shot{}, nil, err
	}
	port, err := d.port(p, proto, server, to)
	if err != nil {
		return shot{}, nil, err
	}
	s := shot{netns: client.netns, server: netip.AddrPortFrom(to, port), proto: proto}
	if client.fixed {
		s.source = from
	}
	if proto.HasPorts() {
		s.doors = d.doors(server, proto, to, port)
	}
	if proto.IsICMP() && to.Is6() {
		s.proto = identity.ICMPv6
	} else if proto.IsICMP() {
		s.proto = identity.ICMP
	}
	var outside []netip.Addr
	if client.out {
		outside = append(outside, from)
	}
	if server.out {
		outside = append(outside, to)
	}
	return s, outside, nil
}

func family(client, server endpoint) (from, to netip.Addr, err error) {
	for _, v4 := range []bool{true, false} {
		for _, a := range client.addrs {
			for _, b := range server.addrs {
				if a.Is4() == v4 && b.Is4() == v4 {
					return a, b, nil
				}
			}
		}
	}
	return from, to, errors.New("client and server have no address family in common")
}

// port is the number to dial; 0 for ICMP. A name is one of the server's container ports, or of the
// Service's ports.
func (d *directory) port(p *Probe, proto identity.Protocol, server endpoint, to netip.Addr) (uint16, error) {
	switch {
	case proto.IsICMP():
		return 0, nil
	case p.Port.Name == "" && p.Port.Number == 0:
		return 0, errors.New("port: want a number from 1 to 65535 or a name")
	case p.Port.Name == "":
		return p.Port.Number, nil
	}
	if server.vip {
		for _, v := range d.vips[to] {
			if v.PortName == p.Port.Name && v.Protocol == proto {
				return v.Port, nil
			}
		}
	}
	if server.pod != nil {
		if n := namedPort(server.pod, p.Port.Name, proto); n != 0 {
			return n, nil
		}
	}
	return 0, fmt.Errorf("port %s: %s has no %s port of that name", p.Port.Name, p.Server, proto)
}

// doors is where the answer comes from: the server, or every backend of a Service.
func (d *directory) doors(server endpoint, proto identity.Protocol, to netip.Addr, port uint16) []door {
	if !server.vip {
		return []door{{server.netns, proto, port}}
	}
	var out []door
	for _, v := range d.vips[to] {
		if v.Protocol != proto || v.Port != port {
			continue
		}
		for _, b := range v.Backends {
			out = append(out, door{d.byAddr[b.Addr()].netns, proto, b.Port()})
		}
	}
	return out
}

// answerer gives the name that a listener of a namespace answers with.
func (d *directory) answerer(netns string) func(netip.Addr) string {
	return func(a netip.Addr) string {
		if e, ok := d.byAddr[a]; ok {
			return e.name
		}
		if netns == d.state.Outside.NetNS {
			return "outside/" + a.String()
		}
		return netns
	}
}

// canary is a ping from the outside network to a node: no policy has a say in it.
func (d *directory) canary() *shot {
	if len(d.state.Nodes) == 0 || len(d.state.Outside.Addrs) == 0 {
		return nil
	}
	to, _ := d.state.Nodes[0].lanAddr(true)
	return &shot{netns: d.state.Outside.NetNS, server: netip.AddrPortFrom(to, 0), proto: identity.ICMP}
}
