package flow

import (
	"net/netip"
	"time"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Sensor is where a record was taken.
type Sensor uint8

const (
	InNamespace Sensor = iota // in the workload's own namespace
	AtGuard                   // on the host's end of the workload's veth
)

// Event is why the kernel told us of a packet.
type Event uint8

const (
	Birth  Event = iota + 1 // a connection's first packet, first sight of (peer, protocol, port)
	Denied                  // a packet that the ruleset dropped
	Spoof                   // the guard dropped a frame whose sender was not the workload
	Raw                     // the guard dropped a frame that the namespace's own ruleset never let out
	Usage                   // no packet: counters of a known peer, read back from the kernel
)

// Record is one observation by the kernel in one workload. Client and server come from the
// connection's birth, never from port numbers.
type Record struct {
	Time       time.Time
	Workload   string // ID of the workload in whose namespace or at whose guard it was taken
	Sensor     Sensor
	Event      Event
	Direction  policy.Direction // Egress: the workload is the client; zero: nothing tells who opened, Client is the sender
	Client     netip.Addr       // unmapped, no zone
	Server     netip.Addr       // as the client dialled it: may be a virtual address
	Protocol   identity.Protocol
	ClientPort uint16 // the identifier for echo requests; 0 when not known; never part of an edge
	Port       uint16 // the server's port; the type for ICMP and ICMPv6
	Verdict    policy.Verdict
	Count      uint64 // connections (datagrams for UDP) that this record stands for; at least 1 except for Usage
	Bytes      uint64
	EtherType  uint16  // for Spoof and Raw: the frame's ethertype
	SourceMAC  [6]byte // for Spoof
}
