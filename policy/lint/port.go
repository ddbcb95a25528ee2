package lint

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// servers lists the workloads at which the rule's ports are looked up: the selected ones for ingress,
// the peers for egress. known says that these are all that count.
func (l *linter) servers(r *rule) (list []*identity.Workload, known bool) {
	if l.view == nil {
		return nil, false
	}
	if r.dir == policy.Ingress {
		list, _ = l.matching(r.subject)
		return list, true
	}
	for _, p := range r.peers {
		switch p.kind {
		case byPods:
			found, _ := l.matching(p.pods)
			list = append(list, found...)
		case byService:
			space, name, _ := strings.Cut(p.name, "/")
			list = append(list, l.view.Behind(space, name)...)
		default:
			return nil, false
		}
	}
	return list, true
}

// port checks one port of a rule.
func (l *linter) port(r *rule, i int, servers []*identity.Workload, known bool) {
	p, path := r.ports[i], fmt.Sprintf("%s.ports[%d]", r.path(), i)
	switch {
	case p.name != "" && r.dir == policy.Egress && !slices.ContainsFunc(r.peers, hasNames):
		l.add(r.of, path+".port", checkNever, "port name %q is looked up at the server's container ports, and these peers are no workloads", p.name).
			fix("write the port's number")
	case p.protocol.IsICMP() && l.otherFamily(r, p.protocol):
		l.add(r.of, path+".protocol", checkNever, "%s does not exist between addresses of the other family, and all peers are of that", p.protocol).
			fix("write %s", otherICMP(p.protocol)).replace(p.protocol.String(), otherICMP(p.protocol).String())
	case !known || len(servers) == 0:
	case p.name != "":
		l.portName(r, p, path+".port", servers)
	default:
		l.servicePort(r, r.Ports[i], p, path+".port", servers)
	}
}

// hasNames says whether a peer can be a workload, whose ports have names.
func hasNames(p peer) bool {
	switch p.kind {
	case byName:
		return false
	case byNetwork:
		return p.name != policy.NetworkWorld && p.name != policy.NetworkMetadata
	}
	return true
}

func otherICMP(p identity.Protocol) identity.Protocol {
	if p == identity.ICMP {
		return identity.ICMPv6
	}
	return identity.ICMP
}

func (l *linter) otherFamily(r *rule, p identity.Protocol) bool {
	return !slices.ContainsFunc(r.peers, func(x peer) bool {
		return x.kind != byBlock || slices.ContainsFunc(x.pieces, func(b netip.Prefix) bool { return b.Addr().Is4() == (p == identity.ICMP) })
	})
}

func (l *linter) portName(r *rule, p ports, path string, servers []*identity.Workload) {
	var names []string
	others := map[identity.Protocol]bool{}
	for _, w := range servers {
		for _, c := range w.Ports {
			switch {
			case c.Name == p.name && c.Protocol == p.protocol:
				return
			case c.Name == p.name:
				others[c.Protocol] = true
			case c.Protocol == p.protocol && c.Name != "" && !slices.Contains(names, c.Name):
				names = append(names, c.Name)
			}
		}
	}
	slices.Sort(names)
	f := l.add(r.of, path, checkPortName, "no workload that it could mean has a %s port named %q", p.protocol, p.name)
	near := policy.Nearest(p.name, names)
	for _, protocol := range []identity.Protocol{identity.TCP, identity.UDP, identity.SCTP} {
		if others[protocol] {
			f.fix("%q is a %s port there: write protocol: %s", p.name, protocol, protocol)
			return
		}
	}
	switch {
	case near != "":
		f.fix("write %s", near).replace(p.name, near)
	case len(names) > 0:
		f.fix("names there are %s", some(names))
	default:
		f.fix("give the container port a name, or write the port's number")
	}
}

// servicePort tells of a port that no server declares, and that a Service in front of them shows for
// another one.
func (l *linter) servicePort(r *rule, x policy.Port, p ports, path string, servers []*identity.Workload) {
	if x.Port == nil || x.Port.Type != intstr.Int || x.EndPort != nil || !p.protocol.HasPorts() {
		return
	}
	for _, w := range servers {
		if slices.ContainsFunc(w.Ports, func(c identity.ContainerPort) bool { return c.Protocol == p.protocol && int32(c.Port) == p.low }) {
			return
		}
	}
	for _, key := range l.view.VIPKeys() {
		if key.Protocol != p.protocol || int32(key.Port) != p.low {
			continue
		}
		var targets []string
		for _, b := range l.view.Backends(key) {
			if t := fmt.Sprint(b.Port); slices.Contains(servers, b.Workload) && int32(b.Port) != p.low && !slices.Contains(targets, t) {
				targets = append(targets, t)
			}
		}
		if len(targets) == 0 {
			continue
		}
		slices.Sort(targets)
		f := l.add(r.of, path, checkServicePort, "%d is the port of Service %s; its pods listen on %s", p.low, l.view.VIPNames[key.Addr], strings.Join(targets, ", "))
		f.fix("write port: %s", targets[0])
		if len(targets) == 1 {
			f.replace(fmt.Sprint(p.low), targets[0])
		}
		return
	}
}
