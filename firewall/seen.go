package firewall

import (
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// seenChain remembers births and datagrams that are let through, and logs each (peer, protocol,
// port) when it is new.
func (w ways) seenChain() *Chain {
	c := &Chain{Name: w.name("_seen")}
	add := func(comment string, cl ...clause) { c.Rules = append(c.Rules, newRule(comment, cl...)) }
	add("", tcp(), w.asks("tcp").in(w.seen()), accept())
	add("", isL4(identity.UDP), goTo(w.name("_udp")))
	add("", tcp(), w.asks("tcp").addTo(w.seen(), 0), logTo(w.allowPrefix()), accept())
	add("", isL4(w.icmp()), goTo(w.name("_ping")))
	add("", sctpLater("meta l4proto sctp @th,96,8 != 0x1"), accept())
	w.firstSight(add, w.asks("th"))
	add("", w.laterFragment(), accept())
	add("", count(CounterOverflow), accept())
	return c
}

func (w ways) allowPrefix() string {
	if w.out() {
		return PrefixOutAllow
	}
	return PrefixInAllow
}

// firstSight accepts what is known, remembers and logs what is not.
func (w ways) firstSight(add func(string, ...clause), k key, given ...clause) {
	add("", append(given[:len(given):len(given)], k.in(w.seen()), accept())...)
	add("", append(given[:len(given):len(given)], k.addTo(w.seen(), 0), logTo(w.allowPrefix()), accept())...)
}

// udpChain keeps in memory what is asked again: a client's question for the server's answer, and at the
// server that it may answer. What is not known yet is a first question, or an answer.
func (w ways) udpChain() *Chain {
	c := &Chain{Name: w.name("_udp")}
	add := func(comment string, cl ...clause) { c.Rules = append(c.Rules, newRule(comment, cl...)) }
	k := w.asks("th")
	add("", k.notIn(w.seen()), goTo(w.name("_reply")))
	add("", k.refresh(w.seen(), 0), w.expectAnswer(), accept())
	add("", count(CounterOverflow), accept())
	return c
}

// expectAnswer remembers a question, in every mode, so that no answer is missed when the mode changes.
func (w ways) expectAnswer() clause {
	if w.out() {
		return w.key(w.peer(), port(false, "th"), port(true, "th")).refresh("clients"+w.digit(), 0)
	}
	return w.asks("th").refresh("served"+w.digit(), 0)
}

// replyChain tells first questions from answers, which are no births.
func (w ways) replyChain() *Chain {
	c := &Chain{Name: w.name("_reply")}
	question := []clause{w.answers("th").notIn(w.opposite().seen())}
	if w.opposite().judges() && !w.opposite().enforces() && !w.lists() {
		// What was alerted is in another set, and answered all the same.
		question = append(question, w.answers("th").notIn(w.opposite().denied()))
	}
	c.Rules = append(c.Rules, newRule("", append(question, goTo(w.name("_birth")))...), newRule("answers are no births", accept()))
	return c
}

// birthChain remembers and logs a first question.
func (w ways) birthChain() *Chain {
	c := &Chain{Name: w.name("_birth")}
	add := func(comment string, cl ...clause) { c.Rules = append(c.Rules, newRule(comment, cl...)) }
	add("", w.expectAnswer())
	add("", w.asks("th").addTo(w.seen(), 0), logTo(w.allowPrefix()), accept())
	add("", count(CounterOverflow), accept())
	return c
}

// pingChain is seenChain for ICMP.
func (w ways) pingChain() *Chain {
	c := &Chain{Name: w.name("_ping")}
	add := func(comment string, cl ...clause) { c.Rules = append(c.Rules, newRule(comment, cl...)) }
	w.alwaysRules(add)
	request, reply := w.echoTypes()
	add("", w.icmpType(reply, reply), accept())
	add("", w.icmpType(request, request), w.echo().refresh("served"+w.digit(), 0))
	w.firstSight(add, w.message())
	add("", count(CounterOverflow), accept())
	return c
}

// wideChain remembers what comes in for a port that no exact key names, so that it may be answered.
func (w ways) wideChain() *Chain {
	c := &Chain{Name: w.name("_wide")}
	add := func(comment string, cl ...clause) { c.Rules = append(c.Rules, newRule(comment, cl...)) }
	if w.opposite().lists() {
		add("answers of servers", tcpLater(), w.answers("tcp").in(w.opposite().set("")), accept())
	}
	w.rememberTCP(w.spec, add, w.asks("tcp"))
	add("", tcpLater(), accept())
	add("", l4(identity.SCTP, ""), w.asks("sctp").refresh("served"+w.digit(), servedTime))
	add("", sctpLater("meta l4proto sctp @th,96,8 != 0x1"), accept())
	add("", goTo(w.name("_seen")))
	return c
}

// rememberTCP keeps a birth for a short while and whatever follows it for long, so that scans do not
// fill the set. Where egress is judged only a birth begins it: what a server sends on a connection
// that lost its right is no question, or else it would let the client answer for ever. The client's
// socket is gone by then, but who speaks TCP through a raw socket, or from a namespace of its own
// behind ours, has none that could be cut.
func (s site) rememberTCP(spec Spec, add func(string, ...clause), k key) {
	served := "served" + s.digit()
	add("", tcpBirth(), k.addTo(served, synTime))
	if spec.judges(policy.Egress) {
		add("", tcpLater(), k.in(served), k.refresh(served, servedTime))
		return
	}
	add("", tcpLater(), k.refresh(served, servedTime))
}
