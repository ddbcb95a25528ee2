package flow

import (
	"fmt"
	"net/netip"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// scanPorts is from how many ports of one server on a client looks like a scanner. Known shops
// stay under five.
const scanPorts = 15

// metadata is where clouds hand out credentials to whoever asks from the machine: AWS, Google,
// Azure and others; AWS over IPv6; AWS ECS; Alibaba.
var metadata = map[netip.Addr]bool{
	netip.MustParseAddr("169.254.169.254"): true,
	netip.MustParseAddr("fd00:ec2::254"):   true,
	netip.MustParseAddr("169.254.170.2"):   true,
	netip.MustParseAddr("100.100.100.200"): true,
}

// Reviews gives for each suspicious edge the reason why a person should look at it before it is
// allowed for good. It depends on the edges alone, not on their order.
func Reviews(edges []Edge) map[Key]string {
	type pair struct{ client, server End }
	ports := make(map[pair]int)
	for i := range edges {
		if e := &edges[i]; e.Allowed() && !e.Protocol.IsICMP() {
			ports[pair{e.Client, e.Server}]++
		}
	}
	out := make(map[Key]string)
	for i := range edges {
		e := &edges[i]
		if reason := reviewAddr(e.Server); reason != "" {
			out[e.Key] = reason
		} else if n := ports[pair{e.Client, e.Server}]; n >= scanPorts && e.Allowed() {
			out[e.Key] = fmt.Sprintf("scan-like: %s called %d or more ports of %s", e.Client, n/scanPorts*scanPorts, e.Server)
		}
	}
	return out
}

func reviewAddr(server End) string {
	switch a := server.Addr; {
	case IsMetadata(server):
		return "metadata address of a cloud: it hands out credentials to whoever asks"
	case server.Kind != identity.World || !a.IsValid():
	case a.IsLinkLocalUnicast():
		return "link-local address that no resolver or node of ours has"
	}
	return ""
}

// IsMetadata says that an end is a cloud's metadata server, named so or not.
func IsMetadata(e End) bool {
	return e.Kind == identity.Network && e.Name == identity.MetadataNetwork || e.Kind == identity.World && metadata[e.Addr]
}
