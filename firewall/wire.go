package firewall

import "github.com/bulkhead-firewall/bulkhead/policy"

// What the rules write and the flow log reads. Both sides of this package stand on these names.
const (
	// TableName is the inet table in a workload's namespace.
	TableName = "bulkhead"
	// GuardPrefix and the name of the host's veth make the name of the guard's netdev table.
	GuardPrefix = "bulkhead-"

	// LogGroup is the NFLOG group of every log rule, in the workloads' namespaces and the node's.
	LogGroup = 4711
	// LogSnapLen is how many bytes of a packet a log message carries: enough for IPv6 with
	// extension headers and a transport header.
	LogSnapLen = 128
)

// Log prefixes: the event, as the kernel tells it. "allow", "alert" and "deny" are logged in the
// namespace, on first sight of (peer, protocol, server port); the packet is the connection's birth.
// "spoof" and "raw" are logged by the guard, with indev the host's end of the veth; the payload
// starts at the network header there. An interface without a host's end has its guard inside the
// namespace on netdev egress: the message comes from the namespace's own group, has outdev instead
// of indev, and its payload starts at the Ethernet header.
const (
	PrefixOutAllow = "bh out allow"
	PrefixOutAlert = "bh out alert"
	PrefixOutDeny  = "bh out deny"
	PrefixInAllow  = "bh in allow"
	PrefixInAlert  = "bh in alert"
	PrefixInDeny   = "bh in deny"
	PrefixSpoof    = "bh spoof"
	PrefixRaw      = "bh raw"
)

// Named counters. Overflow counts packets that were judged but not remembered, because a dynamic set
// was full. Stray counts segments of an unguarded workload that belong to no allowed connection.
// The guard's: Spoofed and Raw count every such frame, also those that the log's rate limit kept
// quiet; Late counts resets of connections that lost their right, which the kernel sends by itself.
const (
	CounterOverflow = "overflow" // table TableName
	CounterStray    = "stray"    // table TableName
	CounterSpoofed  = "spoofed"  // guard
	CounterRaw      = "raw"      // guard
	CounterLate     = "late"     // guard
)

// Bounds of the sets that packets fill. A full set is no error: the packet is judged all the same,
// it is only not remembered.
const (
	SeenSize      = 65535
	DeniedSize    = 4096
	ClientsSize   = 65535
	ServedSize    = 65535
	SeenTimeout   = 60  // seconds; how often a living edge is told again
	DeniedTimeout = 60  // seconds
	UDPTimeout    = 180 // seconds; how long an answer may take
)

// SeenSet names the dynamic set of connections seen in one direction and family (4 or 6):
// address of the peer . protocol . server port, each part padded to four bytes, with a counter of
// births (TCP, SCTP INIT), or of datagrams from client to server. The set lives in table [TableName].
//
// For ICMP and ICMPv6 the third part is type × 256 + code. For protocols other than TCP, UDP, SCTP
// and ICMP it is bytes 2 and 3 after the IP header, whatever they are: it says nothing.
func SeenSet(dir policy.Direction, family int) string { return dirSet("seen", dir, family) }

// DeniedSet names the dynamic set of connections denied or, in alert mode, alerted: the same key as
// [SeenSet], with a counter of the packets it stands for.
func DeniedSet(dir policy.Direction, family int) string { return dirSet("denied", dir, family) }

func dirSet(what string, dir policy.Direction, family int) string {
	s := what + "_out"
	if dir == policy.Ingress {
		s = what + "_in"
	}
	return s + familySuffix(family)
}

func familySuffix(family int) string {
	if family == 6 {
		return "6"
	}
	return "4"
}
