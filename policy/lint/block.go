package lint

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// block checks an ipBlock.
func (l *linter) block(r *rule, path string, x policy.Peer, p peer) {
	path += ".ipBlock"
	block, err := netip.ParsePrefix(x.IPBlock.CIDR)
	if err != nil {
		return
	}
	l.hostBits(r, path+".cidr", x.IPBlock.CIDR)
	for i, e := range x.IPBlock.Except {
		l.hostBits(r, fmt.Sprintf("%s.except[%d]", path, i), e)
	}
	if len(p.pieces) == 0 {
		l.add(r.of, path+".except", checkExcept, "the exceptions cover all of %s; the peer is nobody", x.IPBlock.CIDR).
			fix("remove the exception that is too wide, or the peer")
		return
	}
	l.podBlock(r, path+".cidr", block.Masked(), p)
	l.metadata(r, path+".cidr", block, p)
}

func (l *linter) hostBits(r *rule, path, text string) {
	if p, err := netip.ParsePrefix(text); err == nil && p != p.Masked() {
		l.add(r.of, path, checkHostBits, "%s has bits behind its prefix; it is read as %s", text, p.Masked()).
			fix("write %s, or %s for the one address", p.Masked(), identity.Single(p.Addr())).replace(text, p.Masked().String())
	}
}

// podBlock tells of blocks that lie in the cluster's own ranges, or are one pod's address.
func (l *linter) podBlock(r *rule, path string, block netip.Prefix, p peer) {
	if l.view == nil {
		return
	}
	if w := l.view.Owner(block.Addr()); block.IsSingleIP() && w != nil {
		l.add(r.of, path, checkPodBlock, "%s is the address of pod %s/%s, which changes when it restarts", block.Addr(), w.Namespace, w.Name).
			fix("select it by its labels")
		return
	}
	if block.Bits() > 0 && covered(block, identity.Union(l.view.PodBlocks)) {
		l.add(r.of, path, checkPodBlock, "%s lies in the cluster's pod blocks; which pods have these addresses changes", block).
			fix("select the pods by labels")
		return
	}
	if w := l.firstIn(block); w != nil && block.Bits() >= smallBlock(block) {
		l.add(r.of, path, checkPodBlock, "%s holds pods, %s/%s for one; which pods have these addresses changes", block, w.Namespace, w.Name).
			fix("select the pods by labels")
	}
}

// smallBlock is from which prefix length on a block that holds a pod was most likely written for pods.
func smallBlock(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 16
	}
	return 48
}

// firstIn gives a pod with an address in the block, the first by namespace and name; nil: there is none.
func (l *linter) firstIn(block netip.Prefix) *identity.Workload {
	var first *identity.Workload
	for _, w := range l.view.Workloads {
		if !w.HostNetwork && slices.ContainsFunc(w.Addrs, block.Contains) && (first == nil || w.Namespace+"/"+w.Name < first.Namespace+"/"+first.Name) {
			first = w
		}
	}
	return first
}

var metadataServer = netip.MustParseAddr("169.254.169.254")

// metadata tells of egress to every address, the cloud's metadata server included.
func (l *linter) metadata(r *rule, path string, block netip.Prefix, p peer) {
	http := ports{protocol: identity.TCP, low: 80, high: 80}
	if r.dir != policy.Egress || r.Action != policy.ActionAllow || block.Bits() != 0 || !http.within(r.ports) ||
		!slices.ContainsFunc(p.pieces, func(x netip.Prefix) bool { return x.Contains(metadataServer) }) {
		return
	}
	f := l.add(r.of, path, checkMetadata, "%s reaches the cloud's metadata server %s, which hands out the node's credentials", block, metadataServer)
	if r.of.Kind == policy.KindPolicy {
		f.fix("use network: world, which leaves it out, or add except: [%s/32]", metadataServer)
	} else {
		f.fix("add except: [%s/32]", metadataServer)
	}
}

// clusterName tells of a Service's own name as a DNS peer.
func (l *linter) clusterName(r *rule, path, name string) {
	if !strings.HasSuffix(name, ".svc.cluster.local") {
		return
	}
	f := l.add(r.of, path+".dnsName", checkClusterName, "%s is a name inside of the cluster", name)
	if parts := strings.Split(name, "."); len(parts) == 5 && parts[0] != "*" {
		f.fix("write service: {name: %s, namespace: %s}", parts[0], parts[1])
	} else {
		f.fix("select the workloads by labels")
	}
}

// doubles tells of peers and ports that another of the same rule covers.
func (l *linter) doubles(r *rule) {
	for i := range r.Peers {
		for j := range r.Peers {
			if i == j || !r.peers[i].within(r.peers[j]) || i < j && r.peers[j].within(r.peers[i]) || emptyBlock(r.peers[i]) {
				continue
			}
			l.add(r.of, r.peerPath(i), checkRedundant, "%s is covered by item %d of the same list, %s", r.Peers[i], j, r.Peers[j]).
				fix("remove it").as(Note)
			break
		}
	}
	for i := range r.Ports {
		others := slices.Delete(slices.Clone(r.ports), i, i+1)
		twin := slices.Index(r.ports, r.ports[i])
		if r.ports[i].within(others) && twin == i && slices.Contains(r.ports[i+1:], r.ports[i]) {
			continue // its twin further down is told of
		}
		if r.ports[i].within(others) {
			l.add(r.of, fmt.Sprintf("%s.ports[%d]", r.path(), i), checkRedundant, "%s is covered by other items of the same list", r.Ports[i]).
				fix("remove it").as(Note)
		}
	}
}

func emptyBlock(p peer) bool { return p.kind == byBlock && len(p.pieces) == 0 }
