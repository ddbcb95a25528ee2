package flow

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// End is one end of an edge: a service, or the named peer that stands for it. It is comparable, and
// only the fields that its kind needs are set. The zero value is the world, any address.
type End struct {
	Kind    identity.PeerKind
	Service identity.Service // for Pod
	Name    string           // for Network its name; for VIP namespace/name of the Service
	Addr    netip.Addr       // for World; invalid: more addresses than are kept apart
}

// EndOf folds a peer to the end it belongs to: a workload to its service, a resolver to "dns".
func EndOf(p identity.Peer) End {
	switch p.Kind {
	case identity.Pod:
		if p.Workload == nil {
			break
		}
		s := p.Workload.Service
		if s.Name == "" {
			s = identity.Service{Namespace: p.Workload.Namespace, Name: p.Workload.Name}
		}
		return End{Kind: identity.Pod, Service: s}
	case identity.Node, identity.Resolver:
		return End{Kind: p.Kind}
	case identity.VIP, identity.Network:
		return End{Kind: p.Kind, Name: p.Network}
	}
	return End{Kind: identity.World, Addr: p.Addr}
}

// wide is the end without its address: "the world" for one address of it.
func (e End) wide() End {
	e.Addr = netip.Addr{}
	return e
}

// String names the end for people, as identity.Peer does.
func (e End) String() string {
	switch e.Kind {
	case identity.Pod:
		return e.Service.String()
	case identity.Network, identity.VIP:
		return e.Name
	case identity.World:
		if e.Addr.IsValid() {
			return e.Addr.String()
		}
	}
	return e.Kind.String()
}

// Compare orders ends: services first, by namespace and name, then the others by kind and name.
func (e End) Compare(o End) int {
	rank := func(k identity.PeerKind) int {
		switch k {
		case identity.Pod:
			return 0
		case identity.World:
			return 9
		}
		return int(k)
	}
	return cmp.Or(
		cmp.Compare(rank(e.Kind), rank(o.Kind)),
		cmp.Compare(e.Service.Namespace, o.Service.Namespace),
		cmp.Compare(e.Service.Name, o.Service.Name),
		cmp.Compare(e.Name, o.Name),
		e.Addr.Compare(o.Addr),
	)
}

// Key tells edges apart: who calls whom, over which protocol, at which port of the server. The
// port is always the one that the server's own process listens on, never a Service's.
type Key struct {
	Client   End
	Server   End
	Protocol identity.Protocol
	Port     uint16 // the type for ICMP and ICMPv6, 0 for protocols without ports
}

// Wide is the key with the addresses of the world taken out: what many world addresses fold to.
func (k Key) Wide() Key {
	k.Client, k.Server = k.Client.wide(), k.Server.wide()
	return k
}

// Compare orders keys by client, server, protocol, port.
func (k Key) Compare(o Key) int {
	return cmp.Or(
		k.Client.Compare(o.Client),
		k.Server.Compare(o.Server),
		cmp.Compare(k.Protocol, o.Protocol),
		cmp.Compare(k.Port, o.Port),
	)
}

// String gives "shop/web → shop/db TCP/5432".
func (k Key) String() string {
	return k.Client.String() + " → " + k.Server.String() + " " + PortName(k.Protocol, k.Port)
}

// Tally is what one end of an edge reported, in connections (datagrams for UDP) and bytes.
type Tally struct {
	Allowed   uint64 `json:"allowed,omitempty"`
	Denied    uint64 `json:"denied,omitempty"`
	WouldDeny uint64 `json:"wouldDeny,omitempty"` // let through by mode alert
	Bytes     uint64 `json:"bytes,omitempty"`
}

// refused says that this end reported the edge and has only ever said no to it.
func (t Tally) refused() bool { return t.Allowed == 0 && t.Denied+t.WouldDeny > 0 }

func (t *Tally) add(o Tally) {
	t.Allowed += o.Allowed
	t.Denied += o.Denied
	t.WouldDeny += o.WouldDeny
	t.Bytes += o.Bytes
}

// Edge is flows folded to service → service : protocol/port. Both ends report the same connections;
// their tallies are kept apart so that nothing is counted twice.
type Edge struct {
	Key
	First    time.Time // of any record, denied ones too
	Last     time.Time
	AtClient Tally             // what the client's namespace reported
	AtServer Tally             // what the server's namespace reported
	Clients  Earliest[Member]  // workloads that called, the first ones
	Servers  Earliest[Member]  // workloads that answered, as their own namespace reported
	VIPs     Earliest[Dialled] // virtual addresses that clients dialled to get there, the first ones
	Names    Earliest[DNSName] // under which clients knew an address of the world, the first ones
}

// Allowed says whether connections of this edge were let through by what policy says, and not only
// because mode alert lets everything through: some end allowed it and no end has only ever refused
// it. Only such edges teach.
func (e *Edge) Allowed() bool { return e.Count() > 0 }

// Count is how many connections were allowed: what the end that saw more of them reported.
func (e *Edge) Count() uint64 {
	if e.AtClient.refused() || e.AtServer.refused() {
		return 0
	}
	return max(e.AtClient.Allowed, e.AtServer.Allowed)
}

// Denied is how many connections were stopped, at either end: what the client's end stops, the
// server's never sees.
func (e *Edge) Denied() uint64 { return e.AtClient.Denied + e.AtServer.Denied }

// WouldDeny is how many connections mode alert let through although policy denies them.
func (e *Edge) WouldDeny() uint64 { return max(e.AtClient.WouldDeny, e.AtServer.WouldDeny) }

// Bytes is the volume, as the end that saw more of it reported.
func (e *Edge) Bytes() uint64 { return max(e.AtClient.Bytes, e.AtServer.Bytes) }

// merge folds o, another edge, into e.
func (e *Edge) merge(o *Edge, lim Limits) {
	if e.First.IsZero() || o.First.Before(e.First) {
		e.First = o.First
	}
	if o.Last.After(e.Last) {
		e.Last = o.Last
	}
	e.AtClient.add(o.AtClient)
	e.AtServer.add(o.AtServer)
	e.Clients.merge(o.Clients, lim.Workloads)
	e.Servers.merge(o.Servers, lim.Workloads)
	e.VIPs.merge(o.VIPs, lim.VIPs)
	e.Names.merge(o.Names, lim.Names)
}

// clone is a copy that shares no list with e.
func (e *Edge) clone() Edge {
	c := *e
	c.Clients.Items = append([]Seen[Member](nil), e.Clients.Items...)
	c.Servers.Items = append([]Seen[Member](nil), e.Servers.Items...)
	c.VIPs.Items = append([]Seen[Dialled](nil), e.VIPs.Items...)
	c.Names.Items = append([]Seen[DNSName](nil), e.Names.Items...)
	return c
}
