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
	asks := s.bareKey(s.bareAddr(false), protocolField(), port(false, "th"))
	answers := func(proto string) key { return s.bareKey(s.bareAddr(false), protocolField(), port(true, proto)) }
	set := func(d policy.Direction, suffix string) string { return d.String() + s.digit() + suffix }
	if g.spec.lists(policy.Egress) {
		add("", asks.in(set(policy.Egress, "")), accept())
	}
	answer := func(name string) {
		add("", tcpLater(), answers("tcp").in(name), accept())
		add("", l4(identity.UDP, ""), answers("udp").in(name), accept())
		add("", sctpLater("@th,96,8 != 0x1"), answers("sctp").in(name), accept())
	}
	if g.spec.lists(policy.Ingress) {
		answer(set(policy.Ingress, ""))
	}
	answer("served" + s.digit())
	add("", isL4(s.icmp()), goTo("pair"+s.digit()+"_icmp"))
	s.laterFragments(g.spec, false, add)
	then(s.wide(g.spec, policy.Egress, false, false), accept(), add)
	g.resetRule(s, add)
	add("", goTo("raw"))
	return c
}

// messageChain is pairChain for ICMP.
func (g guard) messageChain(s site) *Chain {
	c := &Chain{Name: "pair" + s.digit() + "_icmp"}
	add := func(comment string, cl ...clause) { c.Rules = append(c.Rules, newRule(comment, cl...)) }
	g.errorRules(s, add)
	_, reply := s.echoTypes()
	add("", s.icmpType(reply, reply), s.key(s.addr(false), protocolField(), s.echoID()).in("served"+s.digit()), accept())
	then(s.typesICMP(g.spec, policy.Egress, false), accept(), add)
	// A later fragment has no type to look at.
	s.laterFragments(g.spec, false, add)
	then(s.wideICMP(g.spec, policy.Egress, false), accept(), add)
	add("", goTo("raw"))
	return c
}

// errorRules let a workload tell its peers of errors, and who was refused that it was. It is on no
// path, so that nobody else has sent it what could go wrong: an error that a raw socket makes up can
// carry anything, and end or slow the connections of who believes it.
func (g guard) errorRules(s site, add func(string, ...clause)) {
	ranges := [][2]byte{{3, 3}, {11, 12}}
	if s.v6 {
		ranges = [][2]byte{{1, 4}}
	}
	for _, r := range ranges {
		s.ofPeers(g.spec, false, s.icmpType(r[0], r[1]), add)
	}
	if g.spec.rejects(policy.Ingress) {
		add("refused", s.adminProhibited(), accept())
	}
}

// servedChain sees frames to the workload, and only remembers and tells.
func (g guard) servedChain() *Chain {
	c := &Chain{Name: "served", Hook: g.hook(false), records: true}
	if g.hears() {
		c.Rules = append(c.Rules, newRule("", fromPort53(), jumpTo("answers")))
	}
	if !g.judges() {
		return c
	}
	for _, s := range []site{{netdev: true}, {v6: true, netdev: true}} {
		c.Rules = append(c.Rules, newRule("", s.isFamily(), goTo("served"+s.digit())))
	}
	return c
}

// askedChain passes over what an exact key lets answer anyway. Its warm form does not: for the moment
// in which exact keys go and a block takes their place.
//
// Where only single addresses may ask for every port, the node for instance, few frames are from one, and
// the others pass after one look. Where blocks may ask, that look costs more than the exact keys.
func (g guard) askedChain(s site) *Chain {
	c := g.askedRules(s, accept())
	if g.fewAsk(s) {
		c = &Chain{Name: c.Name, records: true, Rules: []Rule{
			newRule("", s.bareKey(s.bareAddr(true)).in(policy.Ingress.String()+s.digit()+"_any"), goTo("asked"+s.digit())),
			g.echoRule(s),
		}}
	}
	c.warm = g.askedRules(s, goTo("remember"+s.digit()))
	return c
}

// fewAsk says that ingress lists whom it allows, and no blocks.
func (g guard) fewAsk(s site) bool {
	return g.spec.lists(policy.Ingress) && !g.expectsResets() && !hasBlocks(g.spec.Sides.Ingress.Entries, s)
}

// fewChain is for frames of those who may ask for every port.
func (g guard) fewChain(s site) *Chain {
	c := g.askedRules(s, accept())
	c.Name = "asked" + s.digit()
	return c
}

// echoRule remembers what is pinged.
func (g guard) echoRule(s site) Rule {
	request, _ := s.echoTypes()
	r := append(s.undeniedICMP(g.spec, policy.Ingress, true), s.icmpType(request, request),
		s.key(s.addr(true), protocolField(), s.echoID()).refresh("served"+s.digit(), 0), accept())
	return newRule("", r...)
}

func (g guard) askedRules(s site, exact clause) *Chain {
	c := &Chain{Name: "served" + s.digit(), records: true}
	add := func(comment string, cl ...clause) { c.Rules = append(c.Rules, newRule(comment, cl...)) }
	asks := s.key(s.addr(true), protocolField(), port(false, "th"))
	if g.spec.lists(policy.Ingress) {
		add("", asks.in(policy.Ingress.String()+s.digit()), exact)
	}
	if g.spec.lists(policy.Egress) {
		add("answers of servers", s.key(s.addr(true), protocolField(), port(true, "th")).in(policy.Egress.String()+s.digit()), accept())
	}
	c.Rules = append(c.Rules, g.echoRule(s))
	if !g.spec.lists(policy.Egress) {
		// Who may be asked on that port anyway need not have asked.
		dgram := l4(identity.UDP, "")
		if g.spec.denies(policy.Egress, s.v6)&(deniesPort|deniesNets) == 0 {
			dgram = isL4(identity.UDP) // no port follows that says so
		}
		r := append([]clause{dgram}, s.undenied(g.spec, policy.Egress, true, true, "udp")...)
		add("answers of servers", append(r, accept())...)
	}
	then(s.wide(g.spec, policy.Ingress, true, false), goTo("remember"+s.digit()), add)
	g.refusedRule(s, add)
	return c
}

func (g guard) rememberChain(s site) *Chain {
	c := &Chain{Name: "remember" + s.digit(), records: true}
	add := func(comment string, cl ...clause) { c.Rules = append(c.Rules, newRule(comment, cl...)) }
	key := func(proto string) key { return s.key(s.addr(true), protocolField(), port(false, proto)) }
	s.rememberTCP(g.spec, add, key("tcp"))
	add("", l4(identity.UDP, ""), key("udp").refresh("served"+s.digit(), 0))
	add("", l4(identity.SCTP, ""), key("sctp").refresh("served"+s.digit(), servedTime))
	return c
}
