package firewall

import (
	"net"
	"net/netip"

	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Interface is one interface of a workload's namespace.
type Interface struct {
	Name      string           // in the namespace: eth0
	Host      string           // the host's end of the veth; empty where there is none (macvlan, ipvlan, host-device)
	HostIndex int              // ifindex of Host in the daemon's namespace; 0 where there is none
	MAC       net.HardwareAddr // of Name
	Addrs     []netip.Addr     // of Name, as CNI assigned them; link-local IPv6 is added from the MAC
}

// Spec is everything that decides a workload's ruleset. Equal specs compile to equal rulesets.
type Spec struct {
	Mode       policy.Mode
	Sides      policy.Sides
	Interfaces []Interface

	// Redirected says that somebody rewrites what comes in, see [Namespace.Redirects]: ingress is judged
	// before that.
	Redirected bool
	// Resolvers are the DNS servers that the workload was configured with. Where its egress side names
	// names, their answers wait until they are read; no others teach anything.
	Resolvers []netip.Addr
	// Hear has the guards tell of answers also where nothing waits for them: names of what is seen, for
	// people, for suggestions and for policies that are only tried.
	Hear bool
	// NoQueue says that answers cannot wait on this kernel, see NoAnswerQueue: names are learned from what
	// the guards tell, and the first packet may come too early.
	NoQueue bool
	// AnswersClosed drops answers that nobody reads: the daemon is away. Otherwise they pass unread, and
	// names that are known stay open until their elements end.
	AnswersClosed bool
}
