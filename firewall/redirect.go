package firewall

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// Where somebody rewrites what comes in, as a mesh's sidecar does (everything to its port 15006), the
// input hook sees the proxy's port. There ingress is judged before: at prerouting, after connection
// tracking has put fragments together for that NAT (-400, -200), before anything that rewrites (mangle
// -150, dstnat -100). What is redirected on the way out needs no such thing: it goes to loopback, and
// the proxy's own packets are judged.
const (
	hookPrerouting = 0 // NF_INET_PRE_ROUTING
	beforeNAT      = -170
	arrivalChain   = "arrival"
)

// Redirects says whether a table of somebody else's, or iptables' own NAT, may rewrite what comes into
// the namespace, so that Spec.Redirected is due.
func (ns *Namespace) Redirects() (bool, error) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if err := ns.ready(); err != nil {
		return false, err
	}
	found := false
	err := ns.socket(InWorkload).dump(unix.NFT_MSG_GETCHAIN, 0, "chains", nil, func(f Family, at []attr) {
		kind := cstring(find(at, unix.NFTA_CHAIN_TYPE))
		hook := find(at, unix.NFTA_CHAIN_HOOK)
		if kind == "nat" && hook != nil && be32(find(readAttrs(hook), unix.NFTA_HOOK_HOOKNUM)) == hookPrerouting {
			found = true
		}
	})
	if err != nil || found {
		return found, err
	}
	return ns.legacyNAT()
}

// legacyNAT looks for the nat table of iptables' older backend, which nftables does not show.
func (ns *Namespace) legacyNAT() (found bool, err error) {
	err = EnterFile(ns.file, func() error {
		for _, file := range []string{"/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"} {
			names, err := os.ReadFile(file)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			found = found || slices.Contains(strings.Fields(string(names)), "nat")
		}
		return nil
	})
	return found, err
}

// allowsPeer says whether the side lets the peer connect on any TCP port: what is known of a connection
// whose port was rewritten. The guard knows the port, and lets no frame of a revoked one out.
func (s sideRights) allowsPeer(peer netip.Addr) bool {
	if s.open || s.every[peer] {
		return true
	}
	for r := range s.exact {
		if r.peer == peer && r.proto == identity.TCP {
			return true
		}
	}
	for _, b := range s.blocks {
		if b.Peer.Contains(peer) && (b.Protocol == identity.AnyProtocol || b.Protocol == identity.TCP || b.EndProtocol >= identity.TCP) {
			return true
		}
	}
	return false
}

// redirected says that the rules in force judge what comes in before it is rewritten.
func (ns *Namespace) redirected() bool {
	for _, t := range ns.tables(InWorkload) {
		if t.chain(arrivalChain) != nil {
			return true
		}
	}
	return false
}
