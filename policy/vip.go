package policy

import (
	"fmt"
	"net/netip"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// A Service's address is seen in the client's namespace before the node translates it to a backend
// (ARCHITECTURE 9). What holds for it, at the client's egress:
//
//   - A port of the Service with known workloads behind it is allowed exactly when each of them is,
//     on its own port, whatever rules say of the virtual address itself.
//   - Rules by name still apply where no rule denies a workload behind it: a resolver stays one where
//     it is reached through a virtual address.
//   - A port without known workloads is as any address: rules by address apply.
//
// An address that a workload owns is no virtual address.

// isVIP says whether the address is a Service's.
func isVIP(v *identity.View, p identity.Peer) bool {
	if p.Workload != nil || !p.Addr.IsValid() || v.Owner(p.Addr) != nil {
		return false
	}
	_, known := v.VIPNames[p.Addr]
	return known
}

// judgeVIP decides the egress to a virtual address.
func (s side) judgeVIP(q *ask) SideDecision {
	service := q.view.VIPNames[q.other.Addr]
	backends := q.view.Backends(identity.VIPKey{Addr: q.other.Addr, Protocol: q.protocol, Port: q.port})
	if len(backends) == 0 {
		return s.judge(q)
	}
	best, denied := s.behind(q, backends)
	out := s
	if denied == nil {
		out.explain(&best.ask, best.found)
		out.Reason = fmt.Sprintf("service %s, all workloads behind it are allowed: %s", service, out.Reason)
		return out.SideDecision
	}
	if f := s.decide(q, byName); denied.rule == nil && f.allow {
		out.explain(q, f)
		return out.SideDecision
	}
	out.explain(&denied.ask, denied.found)
	out.Reason = fmt.Sprintf("service %s: a workload behind it is not allowed: %s", service, out.Reason)
	return out.SideDecision
}

// judged is a question with what decided it.
type judged struct {
	ask
	found
}

// behind judges every workload behind a port: gives the first one's decision, and the one that denies,
// if any does: rather one that a rule denies than one that nothing allows.
func (s side) behind(q *ask, backends []identity.Backend) (best judged, denied *judged) {
	for i, b := range backends {
		for j, a := range familyOf(b.Workload, q.other.Addr) {
			to := *q
			to.other, to.port = backendPeer(q.view, b.Workload, a), b.Port
			x := judged{to, s.decide(&to, byAddress)}
			if i == 0 && j == 0 {
				best = x
			}
			if !x.allow && (denied == nil || denied.rule == nil && x.rule != nil) {
				denied = &x
			}
		}
	}
	return best, denied
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
