package policy

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

func compile(p Policy) (*compiled, error) {
	if bad := check(&p); len(bad) > 0 {
		errs := make([]error, len(bad))
		for i, b := range bad {
			errs[i] = fmt.Errorf("%s%s: %s: %s", place(&p), p.Key(), b.path, b.what)
		}
		return nil, errors.Join(errs...)
	}
	return read(&p), nil
}

// read compiles a policy that check has passed.
func read(p *Policy) *compiled {
	c := &compiled{Policy: p, selects: compileSelector(&p.Spec.PodSelector)}
	if p.clusterWide() {
		c.spaces = &selector{}
		if p.Spec.NamespaceSelector != nil {
			c.spaces = compileSelector(p.Spec.NamespaceSelector)
		}
	}
	for _, d := range []Direction{Egress, Ingress} {
		h := &half{isolates: p.Isolates(d)}
		for i, r := range p.Rules(d) {
			h.rules = append(h.rules, compileRule(c, d, i, r))
		}
		if !p.speaks(d) {
			continue
		}
		if d == Ingress {
			c.ingress = h
		} else {
			c.egress = h
		}
	}
	return c
}

func compileRule(c *compiled, d Direction, i int, r Rule) rule {
	out := rule{
		policy: c, dir: d, index: i, name: c.ruleName(d, i), who: describeAll(r.Peers), what: describeAll(r.Ports),
		action: r.Action, expires: r.Expires, severity: cmp.Or(r.Severity, c.Spec.Severity), note: cmp.Or(r.Reason, c.Spec.Reason),
	}
	for _, x := range r.Peers {
		out.peers = append(out.peers, compilePeer(c.Policy, x))
	}
	for _, x := range r.Ports {
		out.ports = append(out.ports, compilePort(x))
	}
	return out
}

func compilePeer(p *Policy, x Peer) peer {
	if x.IPBlock != nil {
		// check has read them all once.
		out := peer{}
		out.block, _ = parseCIDR(x.IPBlock.CIDR)
		for _, text := range x.IPBlock.Except {
			e, _ := parseCIDR(text)
			out.except = append(out.except, e)
		}
		out.except = identity.Union(out.except)
		out.pieces = identity.Subtract(out.block, out.except)
		return out
	}
	switch {
	case x.Network != "":
		return peer{network: x.Network}
	case x.DNSName != "":
		return peer{dnsName: strings.ToLower(strings.TrimSuffix(x.DNSName, "."))}
	case x.NodeSelector != nil:
		return peer{nodes: compileSelector(x.NodeSelector)}
	case x.Service != nil:
		return peer{service: &ServiceRef{Name: x.Service.Name, Namespace: cmp.Or(x.Service.Namespace, p.Namespace)}}
	}
	return peer{
		selects: true, own: p.Namespace,
		pods: compileSelector(x.PodSelector), spaces: compileSelector(x.NamespaceSelector),
	}
}

func compilePort(x Port) ports {
	out := ports{protocol: x.Protocol, high: 65535}
	if out.protocol == identity.AnyProtocol {
		out.protocol = identity.TCP
	}
	switch {
	case x.Port == nil:
	case x.Port.Type == intstr.String:
		out.name = x.Port.StrVal
	default:
		out.low = uint16(x.Port.IntVal)
		out.high = out.low
		if x.EndPort != nil {
			out.high = uint16(*x.EndPort)
		}
	}
	return out
}
