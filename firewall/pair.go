package firewall

import (
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// pairChain judges every frame that a workload sends: its pair must be allowed as client or as
// server.
func (g guard) pairChain(s site) *Chain {
	c := &Chain{Name: "pair" + s.digit()}
	add := func(comment string, cl ...clause) { c.Rules = append(c.Rules, newRule(comment, cl...)) }
	peer := s.key(s.addr(false))
	asks := s.key(s.addr(false), protocolField(), port(false, "th"))
	answers := func(proto string) key { return s.key(s.addr(false), protocolField(), port(true, proto)) }
	set := func(d policy.Direction, suffix string) string { return d.String() + s.digit() + suffix }
	add("", asks.in(set(policy.Egress, "")), accept())
	answer := func(name string) {
		add("", tcpLater(), answers("tcp").in(name), accept())
		add("", l4(identity.UDP, ""), answers("udp").in(name), accept())
		add("", sctpLater("@th,96,8 != 0x1"), answers("sctp").in(name), accept())
	}
	if g.spec.judges(policy.Ingress) {
		answer(set(policy.Ingress, ""))
	}
	answer("served" + s.digit())
	add("", isL4(s.icmp()), goTo("pair"+s.digit()+"_icmp"))
	if g.spec.judges(policy.Ingress) {
		add("", s.laterFragment(), peer.in("peers"+s.digit()), accept())
		add("", s.laterFragment(), peer.in("peernets"+s.digit()), accept())
	} else {
		add("", s.laterFragment(), accept())
	}
	add("", peer.in(set(policy.Egress, "_any")), accept())
	add("", asks.in(set(policy.Egress, "_nets")), accept())
	add("", goTo("raw"))
	return c
}

// messageChain is pairChain for ICMP.
func (g guard) messageChain(s site) *Chain {
	c := &Chain{Name: "pair" + s.digit() + "_icmp"}
	add := func(comment string, cl ...clause) { c.Rules = append(c.Rules, newRule(comment, cl...)) }
	peer := s.key(s.addr(false))
	egress := policy.Egress.String() + s.digit()
	if s.v6 {
		add("errors", s.icmpType(1, 4), accept())
	} else {
		s.alwaysRules(add)
	}
	_, reply := s.echoTypes()
	add("", s.icmpType(reply, reply), s.key(s.addr(false), protocolField(), s.echoID()).in("served"+s.digit()), accept())
	add("", l4(s.icmp(), ""), s.key(s.addr(false), s.typeField()).in(egress+"_icmp"), accept())
	// A later fragment has no type to look at.
	if g.spec.judges(policy.Ingress) {
		add("", s.laterFragment(), peer.in("peers"+s.digit()), accept())
		add("", s.laterFragment(), peer.in("peernets"+s.digit()), accept())
	} else {
		add("", s.laterFragment(), accept())
	}
	add("", peer.in(egress+"_any"), accept())
	add("", s.key(s.addr(false), protocolField(), port(false, "th")).in(egress+"_nets"), accept())
	add("", goTo("raw"))
	return c
}

// servedChain sees frames to the workload, and only remembers.
func (g guard) servedChain() *Chain {
	c := &Chain{Name: "served", Hook: g.hook(false), records: true}
	for _, s := range []site{{netdev: true}, {v6: true, netdev: true}} {
		c.Rules = append(c.Rules, newRule("", s.isFamily(), goTo("served"+s.digit())))
	}
	return c
}

// askedChain passes over what an exact key lets answer anyway. Its warm form does not: for the moment
// in which exact keys go and a block takes their place.
func (g guard) askedChain(s site) *Chain {
	c := g.askedRules(s, accept())
	c.warm = g.askedRules(s, goTo("remember"+s.digit()))
	return c
}

func (g guard) askedRules(s site, exact clause) *Chain {
	c := &Chain{Name: "served" + s.digit(), records: true}
	add := func(comment string, cl ...clause) { c.Rules = append(c.Rules, newRule(comment, cl...)) }
	peer := s.key(s.addr(true))
	asks := s.key(s.addr(true), protocolField(), port(false, "th"))
	ingress := policy.Ingress.String() + s.digit()
	if g.spec.judges(policy.Ingress) {
		add("", asks.in(ingress), exact)
	}
	add("answers of servers", s.key(s.addr(true), protocolField(), port(true, "th")).in(policy.Egress.String()+s.digit()), accept())
	request, _ := s.echoTypes()
	add("", s.icmpType(request, request), s.key(s.addr(true), protocolField(), s.echoID()).refresh("served"+s.digit(), 0), accept())
	remember := "remember" + s.digit()
	if !g.spec.judges(policy.Ingress) {
		add("", goTo(remember))
		return c
	}
	add("", peer.in(ingress+"_any"), goTo(remember))
	add("", asks.in(ingress+"_nets"), goTo(remember))
	return c
}

func (g guard) rememberChain(s site) *Chain {
	c := &Chain{Name: "remember" + s.digit(), records: true}
	add := func(comment string, cl ...clause) { c.Rules = append(c.Rules, newRule(comment, cl...)) }
	key := func(proto string) key { return s.key(s.addr(true), protocolField(), port(false, proto)) }
	s.rememberTCP(add, key("tcp"))
	add("", l4(identity.UDP, ""), key("udp").refresh("served"+s.digit(), 0))
	add("", l4(identity.SCTP, ""), key("sctp").refresh("served"+s.digit(), servedTime))
	return c
}
