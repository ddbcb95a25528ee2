package firewall

import (
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// ways builds the chains of one direction and family in a namespace: OUT4, OUT6, IN4 or IN6 below.
//
//	output → out4 ──allowed──→ out4_seen → out4_udp, out4_ping …  remembered, logged once, accepted
//	              ──ICMP─────→ out4_icmp ──allowed→ out4_ping
//	              ──denied:    remembered, logged once, dropped (alert: out4_alert, accepted)
//
// A direction that is not judged starts at out4_seen. An unguarded workload's segments turn off to
// out4_pair, and in4_wide remembers what came in.
type ways struct {
	site
	spec Spec
	dir  policy.Direction
}

func (w ways) out() bool { return w.dir == policy.Egress }

func (w ways) name(suffix string) string {
	if w.out() {
		return "out" + w.digit() + suffix
	}
	return "in" + w.digit() + suffix
}

// opposite is the same family in the other direction.
func (w ways) opposite() ways {
	w.dir = policy.Egress + policy.Ingress - w.dir
	return w
}

func (w ways) judges() bool { return w.spec.judges(w.dir) }
func (w ways) lists() bool  { return w.spec.lists(w.dir) }

func (w ways) enforces() bool { return w.spec.Mode == policy.Enforce }

// set names a static set of this direction's side.
func (w ways) set(suffix string) string { return w.dir.String() + w.digit() + suffix }

func (w ways) version() int {
	if w.v6 {
		return 6
	}
	return 4
}

func (w ways) seen() string   { return SeenSet(w.dir, w.version()) }
func (w ways) denied() string { return DeniedSet(w.dir, w.version()) }

// peer is the other end's address.
func (w ways) peer() field { return w.addr(!w.out()) }

// asks is the key of a packet from client to server: peer . protocol . server port.
func (w ways) asks(proto string) key { return w.key(w.peer(), protocolField(), port(false, proto)) }

// answers is the key of a packet from server to client, which is what asks was on the way there.
func (w ways) answers(proto string) key { return w.key(w.peer(), protocolField(), port(true, proto)) }

// message is the key of an ICMP message: its first two bytes, type and code, stand for the port.
func (w ways) message() key { return w.key(w.peer(), protocolField(), port(true, "th")) }

// echo is the key by which a reply knows its request.
func (w ways) echo() key { return w.key(w.peer(), protocolField(), w.echoID()) }

func tcp() clause { return l4(identity.TCP, "") }
func udp() clause { return l4(identity.UDP, "") }

// first is the chain that the base chain leads to.
func (w ways) first() string {
	switch {
	case w.judges():
		return w.name("")
	case !w.out() && w.spec.recordsTCP():
		return w.name("_wide")
	}
	return w.name("_seen")
}

func (w ways) chains() []*Chain {
	out := []*Chain{w.seenChain(), w.udpChain(), w.replyChain(), w.birthChain(), w.pingChain()}
	if w.judges() {
		out = append(out, w.judgeChain(), w.icmpChain())
		if !w.enforces() {
			out = append(out, w.alertChain())
		}
	}
	if !w.spec.birthsOnly(w.dir) {
		if w.out() || w.judges() {
			out = append(out, w.pairChain())
		}
		if !w.out() {
			out = append(out, w.wideChain())
		}
	}
	return out
}

// judgeChain holds births and datagrams against the sets of the side, exact keys first.
func (w ways) judgeChain() *Chain {
	c := &Chain{Name: w.name("")}
	add := func(comment string, cl ...clause) { c.Rules = append(c.Rules, newRule(comment, cl...)) }
	if !w.spec.birthsOnly(w.dir) {
		add("", tcpLater(), goTo(w.name("_pair")))
	}
	if w.lists() {
		add("", w.asks("th").in(w.set("")), goTo(w.name("_seen")))
	}
	w.answerRules(add)
	add("", isL4(w.icmp()), goTo(w.name("_icmp")))
	w.laterFragments(w.spec, !w.out(), add)
	wide := w.name("_seen")
	if !w.out() && w.spec.recordsTCP() {
		wide = w.name("_wide")
	}
	then(w.wide(w.spec, w.dir, !w.out(), false), goTo(wide), add)
	w.denyRules(add)
	return c
}

// answerRules lets answers through. A server's answer needs no memory where the set that allows the
// question names its port; where it allows every port, the question must have been seen. A client
// gets answers to what it sent.
func (w ways) answerRules(add func(string, ...clause)) {
	later := sctpLater("")
	if w.out() {
		if w.opposite().lists() {
			add("", udp(), w.answers("udp").in(w.opposite().set("")), accept())
		}
		add("", udp(), w.answers("udp").in("served"+w.digit()), accept())
	} else {
		add("", udp(), w.key(w.peer(), port(true, "udp"), port(false, "udp")).in("clients"+w.digit()), accept())
	}
	if w.spec.birthsOnly(w.dir) {
		add("not INIT: judged at birth", sctpLater("meta l4proto sctp @th,96,8 != 0x1"), accept())
		return
	}
	later.text = "@th,96,8 != 0x1"
	if w.out() || w.opposite().lists() {
		if w.opposite().lists() {
			add("", later, w.answers("sctp").in(w.opposite().set("")), accept())
		}
		if w.out() {
			add("", later, w.answers("sctp").in("served"+w.digit()), accept())
		}
	}
}

// denyRules end a chain of packets that nothing allowed.
func (w ways) denyRules(add func(string, ...clause)) {
	if w.enforces() {
		w.denyBy(add, w.asks("th"))
		return
	}
	// An answer to what was alerted is no second alert.
	add("", udp(), w.answers("udp").notIn(w.opposite().denied()), goTo(w.name("_alert")))
	add("", isL4(identity.UDP), accept())
	add("", goTo(w.name("_alert")))
}

func (w ways) denyBy(add func(string, ...clause), k key) {
	prefix := PrefixOutDeny
	if !w.out() {
		prefix = PrefixInDeny
	}
	add("", k.in(w.denied()), w.refuse())
	add("", k.addTo(w.denied(), 0), logTo(prefix), w.refuse())
	add("", count(CounterOverflow), w.refuse())
}

func (w ways) alertPrefix() string {
	if w.out() {
		return PrefixOutAlert
	}
	return PrefixInAlert
}

// alertChain remembers and logs what enforce would deny. Datagrams keep their element alive, so that
// the answers to them stay known.
func (w ways) alertChain() *Chain {
	c := &Chain{Name: w.name("_alert")}
	add := func(comment string, cl ...clause) { c.Rules = append(c.Rules, newRule(comment, cl...)) }
	dgram, any := w.asks("udp"), w.asks("th")
	add("", udp(), dgram.notIn(w.denied()), dgram.addTo(w.denied(), 0), logTo(w.alertPrefix()), accept())
	add("", udp(), dgram.refresh(w.denied(), 0), accept())
	add("", any.in(w.denied()), accept())
	add("", any.addTo(w.denied(), 0), logTo(w.alertPrefix()), accept())
	add("", count(CounterOverflow), accept())
	return c
}

// icmpChain holds ICMP against the side's types; a reply passes when its request did.
func (w ways) icmpChain() *Chain {
	c := &Chain{Name: w.name("_icmp")}
	add := func(comment string, cl ...clause) { c.Rules = append(c.Rules, newRule(comment, cl...)) }
	w.alwaysRules(add)
	_, reply := w.echoTypes()
	if w.enforces() {
		add("", w.icmpType(reply, reply), w.echo().in("served"+w.digit()), accept())
	} else {
		add("", w.icmpType(reply, reply), accept())
	}
	if w.v6 { // IPv4 comes whole to the local hooks
		w.laterFragments(w.spec, !w.out(), add)
	}
	ping := goTo(w.name("_ping"))
	then(w.typesICMP(w.spec, w.dir, !w.out()), ping, add)
	then(w.wideICMP(w.spec, w.dir, !w.out()), ping, add)
	if w.enforces() {
		w.denyBy(add, w.message())
		return c
	}
	k := w.message()
	add("", k.in(w.denied()), accept())
	add("", k.addTo(w.denied(), 0), logTo(w.alertPrefix()), accept())
	add("", count(CounterOverflow), accept())
	return c
}

// alwaysRules pass errors that belong to a transport; for IPv6 also neighbour discovery and multicast
// listener discovery, without which there is no IPv6. The guard looks closer at those.
func (s site) alwaysRules(add func(string, ...clause)) {
	if s.v6 {
		add("errors", s.icmpType(1, 4), accept())
		add("MLD and ND", s.icmpType(130, 137), accept())
		add("", s.icmpType(143, 143), accept())
		return
	}
	add("", s.icmpType(3, 3), accept())
	add("errors", s.icmpType(11, 12), accept())
}

// echoTypes are the message types of an echo request and its reply.
func (s site) echoTypes() (request, reply byte) {
	if s.v6 {
		return 128, 129
	}
	return 8, 0
}

// pairChain judges every later segment of an unguarded workload: its pair must be allowed in either
// direction.
func (w ways) pairChain() *Chain {
	c := &Chain{Name: w.name("_pair")}
	add := func(comment string, cl ...clause) { c.Rules = append(c.Rules, newRule(comment, cl...)) }
	if w.lists() {
		add("", w.asks("th").in(w.set("")), accept())
	}
	if w.opposite().lists() {
		add("", w.answers("th").in(w.opposite().set("")), accept())
	}
	if w.out() {
		add("", w.answers("th").in("served"+w.digit()), accept())
		then(w.wide(w.spec, w.dir, false, false), accept(), add)
	} else {
		then(w.wide(w.spec, w.dir, true, false), goTo(w.name("_wide")), add)
		then(w.wide(w.spec, policy.Egress, true, true), accept(), add)
	}
	add("", count(CounterStray), drop())
	return c
}
