package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// A Service's address is seen in the client's namespace before the node translates it to a backend
// (ARCHITECTURE 9). What holds for it, at the client's egress:
//
//   - A port of the Service with known workloads behind it is allowed exactly when each of them is,
//     on its own port, whatever rules say of the virtual address itself.
//   - Rules by name still apply: a resolver stays one where it is reached through a virtual address.
//   - A virtual address is closed when a rule by address would let one of its ports through whose
//     workloads are not allowed. Rules by address then mean nothing for that address, on any port:
//     taking single ports out of a block has no form in the kernel that is worth its price.
//   - A port without known workloads is not specially allowed, nor forbidden: rules by address apply.
//
// An address that a workload owns is no virtual address.

// isVIP says whether the address is a Service's.
func isVIP(v *identity.View, p identity.Peer) bool {
	if p.Workload != nil || !p.Addr.IsValid() || v.ByAddr[p.Addr] != nil {
		return false
	}
	_, known := v.VIPNames[p.Addr]
	return known
}

// judgeVIP decides the egress to a virtual address.
func (s side) judgeVIP(q *ask) SideDecision {
	service := q.view.VIPNames[q.other.Addr]
	key := identity.VIPKey{Addr: q.other.Addr, Protocol: q.protocol, Port: q.port}
	if backends := q.view.Backends(key); len(backends) > 0 {
		first, denied := s.backends(q, backends)
		if denied == nil {
			first.Reason = fmt.Sprintf("service %s, all workloads behind it are allowed: %s", service, first.Reason)
			return first
		}
		out := s.judge(q, byName)
		if out.Verdict != Allow {
			out.Reason = fmt.Sprintf("service %s: a workload behind it is not allowed: %s", service, denied.Reason)
			out.Nearest = denied.Nearest
		}
		return out
	}
	if closed, denied := s.closed(q); closed {
		out := s.judge(q, byName)
		if out.Verdict != Allow {
			out.Reason = fmt.Sprintf("service %s: on another of its ports a workload behind it is not allowed, so no block covers its address: %s",
				service, denied.Reason)
		}
		return out
	}
	return s.judge(q, byAddress)
}

// backends judges every workload behind a port: the first one's decision, and the first denied one.
func (s side) backends(q *ask, backends []identity.Backend) (first SideDecision, denied *SideDecision) {
	for i, b := range backends {
		for j, a := range familyOf(b.Workload, q.other.Addr) {
			to := *q
			to.other, to.port = backendPeer(q.view, b.Workload, a), b.Port
			d := s.judge(&to, byAddress)
			if i == 0 && j == 0 {
				first = d
			}
			if d.Verdict != Allow {
				return first, &d
			}
		}
	}
	return first, nil
}

// closed: see above.
func (s side) closed(q *ask) (bool, SideDecision) {
	for _, key := range portsOf(q.view, q.other.Addr) {
		backends := q.view.VIPs[key]
		if len(backends) == 0 {
			continue
		}
		at := *q
		at.protocol, at.port = key.Protocol, key.Port
		if s.findByAddress(&at) == nil {
			continue
		}
		if _, denied := s.backends(&at, backends); denied != nil {
			return true, *denied
		}
	}
	return false, SideDecision{}
}

// findByAddress gives a rule that allows it by address, be it also by name.
func (s side) findByAddress(q *ask) *rule {
	for _, c := range s.policies {
		h := c.half(q.dir)
		for i := range h.rules {
			if r := &h.rules[i]; r.matchPorts(q) && r.matchesAddress(q) {
				return r
			}
		}
	}
	return nil
}

func (r *rule) matchesAddress(q *ask) bool {
	return len(r.peers) == 0 || slices.ContainsFunc(r.peers, func(p peer) bool { return p.match(q) == byAddress })
}

// portsOf lists a virtual address's ports.
func portsOf(v *identity.View, a netip.Addr) []identity.VIPKey {
	keys := v.VIPKeys()
	from, _ := slices.BinarySearchFunc(keys, a, func(k identity.VIPKey, a netip.Addr) int {
		if c := k.Addr.Compare(a); c != 0 {
			return c
		}
		return 1 // the first key of that address
	})
	to := from
	for to < len(keys) && keys[to].Addr == a {
		to++
	}
	return keys[from:to]
}

// familyOf lists a workload's addresses of the same family as a.
func familyOf(w *identity.Workload, a netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, x := range w.Addrs {
		if x.Is4() == a.Is4() {
			out = append(out, x)
		}
	}
	return out
}

// backendPeer names a backend: by address where it shares its node's.
func backendPeer(v *identity.View, w *identity.Workload, a netip.Addr) identity.Peer {
	if w.HostNetwork {
		return v.Peer(a)
	}
	return identity.Peer{Kind: identity.Pod, Addr: a, Workload: w}
}
