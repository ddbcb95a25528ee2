package policy

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

// Warnings says what policies write that cannot mean what was meant, held against the workloads and
// Services of a view; one sentence each, with the place. Nothing of it keeps a set from taking
// force.
func (s *Set) Warnings(v *identity.View) []string {
	var out []string
	for _, c := range s.policies {
		w := &warner{view: v, policy: c, place: place(c.Policy) + c.Key().String() + ": "}
		w.selects()
		w.unusedRules()
		for _, d := range []Direction{Ingress, Egress} {
			if h := c.half(d); h != nil {
				for i := range h.rules {
					w.rule(d, &h.rules[i], c.Rules(d)[i])
				}
			}
		}
		out = append(out, w.out...)
	}
	return out
}

// warner looks at one policy.
type warner struct {
	view     *identity.View
	policy   *compiled
	place    string
	selected []*identity.Workload
	out      []string
}

func (w *warner) add(format string, args ...any) {
	w.out = append(w.out, w.place+fmt.Sprintf(format, args...))
}

func (w *warner) selects() {
	hosts := 0
	for _, x := range w.view.In(w.policy.Namespace) {
		switch {
		case !w.policy.selects.matches(x.Labels):
		case x.HostNetwork:
			hosts++
		default:
			w.selected = append(w.selected, x)
		}
	}
	switch {
	case len(w.selected) > 0:
	case hosts > 0:
		w.add("podSelector %s matches only workloads in their node's network (%d), which no policy can tell from the node; it selects nothing",
			selectorName(&w.policy.Spec.PodSelector), hosts)
	default:
		w.add("podSelector %s selects no known workload of namespace %s", selectorName(&w.policy.Spec.PodSelector), w.policy.Namespace)
	}
}

// unusedRules: rules of a direction that policyTypes leaves out do nothing.
func (w *warner) unusedRules() {
	for _, d := range []Direction{Ingress, Egress} {
		if n := len(w.policy.Rules(d)); n > 0 && !w.policy.Isolates(d) {
			w.add("%d %s rules without effect: policyTypes does not name %s", n, d, strings.ToUpper(d.String()[:1])+d.String()[1:])
		}
	}
}

func (w *warner) rule(d Direction, r *rule, written Rule) {
	var peers []*identity.Workload
	for i := range r.peers {
		p := &r.peers[i]
		found := w.peer(p, r.name, written.Peers[i])
		peers = append(peers, found...)
	}
	servers := w.selected
	if d == Egress {
		servers = peers
		if len(r.peers) == 0 || slices.ContainsFunc(r.peers, func(p peer) bool { return !p.selects }) {
			servers = nil // peers by address: who serves there is not known
		}
	}
	for i := range r.ports {
		w.port(&r.ports[i], written.Ports[i], r.name, d, servers)
	}
}

// peer warns of a peer that is nobody, and lists who it is.
func (w *warner) peer(p *peer, name string, written Peer) []*identity.Workload {
	if p.network != "" {
		if _, known := w.view.Networks[p.network]; !known && !slices.Contains(builtInNetworks, p.network) {
			known := slices.Concat(builtInNetworks, sortedKeys(w.view.Networks))
			w.add("%s: network %q is not in the configuration; the peer matches nobody%s", name, p.network, didYouMean(p.network, known))
		}
	}
	if !p.selects {
		return nil
	}
	var found []*identity.Workload
	hosts := 0
	for _, x := range w.view.Workloads {
		if p.selected(x) {
			found = append(found, x)
		} else if x.HostNetwork {
			inside := *x
			inside.HostNetwork = false
			if p.selected(&inside) {
				hosts++
			}
		}
	}
	switch {
	case len(found) > 0:
	case hosts > 0:
		w.add("%s: %s matches only workloads in their node's network (%d); they are known by the node's address: use network node, or an ipBlock",
			name, written, hosts)
	default:
		w.add("%s: %s matches no known workload", name, written)
	}
	return found
}

// port warns of a name that no server declares, and of a Service's port where the container's is
// meant.
func (w *warner) port(p *ports, written Port, name string, d Direction, servers []*identity.Workload) {
	if len(servers) == 0 {
		return
	}
	if p.name != "" {
		if !slices.ContainsFunc(servers, func(x *identity.Workload) bool { return x.PortNamed(p.name, p.protocol) != 0 }) {
			w.add("%s: no workload that it could mean declares a %s port named %q%s", name, p.protocol, p.name, didYouMean(p.name, portNames(servers)))
		}
		return
	}
	if written.Port == nil || written.Port.Type != intstr.Int || written.EndPort != nil || !p.protocol.HasPorts() {
		return
	}
	declared := false
	for _, x := range servers {
		declared = declared || slices.ContainsFunc(x.Ports, func(c identity.ContainerPort) bool { return c.Protocol == p.protocol && c.Port == p.low })
	}
	if declared {
		return
	}
	if service, target := w.servicePort(p, servers); target != 0 {
		w.add("%s: %s is a port of service %s; its workloads listen on %d: write %s/%d", name, written, service, target, p.protocol, target)
	}
}

// servicePort finds a Service in front of one of the servers whose port is p's and leads to
// another port; the first by address.
func (w *warner) servicePort(p *ports, servers []*identity.Workload) (service string, target uint16) {
	for _, key := range w.view.VIPKeys() {
		if key.Protocol != p.protocol || key.Port != p.low {
			continue
		}
		for _, b := range w.view.VIPs[key] {
			if slices.Contains(servers, b.Workload) && b.Port != p.low {
				return w.view.VIPNames[key.Addr], b.Port
			}
		}
	}
	return "", 0
}

func portNames(list []*identity.Workload) []string {
	var out []string
	for _, x := range list {
		for _, c := range x.Ports {
			out = append(out, c.Name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
