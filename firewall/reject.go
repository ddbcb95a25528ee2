package firewall

import (
	"fmt"
	"time"

	"github.com/google/nftables/expr"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

const (
	// rejectsPerSecond bounds the answers of one namespace and direction: a scan of a thousand ports
	// costs a hundred resets, and no flood of forged senders makes a workload a flood of its own. What
	// is beyond is dropped.
	rejectsPerSecond = 100

	// refusedSize and refusedTime bound the resets that a guard expects: each is sent within a moment of
	// the packet that it answers.
	refusedSize = 1024
	refusedTime = 5 * time.Second
)

// Fixed by uapi/linux/netfilter/nf_tables.h: enum nft_reject_types, nft_reject_inet_code, nft_dynset_ops.
const (
	dynsetDelete    = 2
	rejectTCPReset  = 1
	rejectICMPX     = 2
	adminProhibited = 3
)

// rejects says that who is denied in a direction is told.
func (spec Spec) rejects(d policy.Direction) bool {
	return spec.Mode == policy.Enforce && spec.judges(d) && spec.side(d).OnDeny == policy.Reject
}

// resets says that a TCP connection is refused with a reset. At ingress it must get by whoever judges
// what the workload sends: the guard expects it (see refusedRules); where there is none, the workload's
// own chains judge every segment and would take it for one of a connection that nobody allowed. Errors
// of ICMP pass both.
func (spec Spec) resets(d policy.Direction) bool {
	return d == policy.Egress || spec.birthsOnly(policy.Egress)
}

func rejectChainName(d policy.Direction) string {
	if d == policy.Egress {
		return "out_reject"
	}
	return "in_reject"
}

// refuse ends a rule for what is denied.
func (w ways) refuse() clause {
	if w.spec.rejects(w.dir) {
		return goTo(rejectChainName(w.dir))
	}
	return drop()
}

// rejectChain answers what is denied. What the workload asks for is answered on its own loopback: no
// packet leaves, so that the answer says nothing of who was asked. What asks the workload is answered
// alike on every denied port, whether or not anybody listens there. No connection is tracked for it:
// an answer is made from the packet alone (net/ipv4/netfilter/nf_reject_ipv4.c).
func rejectChain(spec Spec, d policy.Direction) *Chain {
	c := &Chain{Name: rejectChainName(d)}
	add := func(comment string, cl ...clause) { c.Rules = append(c.Rules, newRule(comment, cl...)) }
	add("", moreThan(rejectsPerSecond), drop())
	if spec.resets(d) {
		add("", isL4(identity.TCP), rejectWith("tcp reset", rejectTCPReset, 0))
	}
	add("", rejectWith("icmpx admin-prohibited", rejectICMPX, adminProhibited))
	return c
}

const rejectText = "reject with "

func rejectWith(text string, kind uint32, code uint8) clause {
	return clause{rejectText + text, []expr.Any{&expr.Reject{Type: kind, Code: code}}}
}

// moreThan matches what exceeds a number of packets a second, bursts of twice as many aside.
func moreThan(perSecond uint64) clause {
	return clause{fmt.Sprintf("limit rate over %d/second burst %d packets", perSecond, 2*perSecond),
		[]expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: perSecond, Unit: expr.LimitTimeSecond, Burst: uint32(2 * perSecond), Over: true}}}
}

// expectsResets says that a guard must let resets out that the workload's own chains send: it judges
// frames, and ingress rejects.
func (g guard) expectsResets() bool {
	return g.judges() && !g.inside && g.spec.rejects(policy.Ingress) && g.spec.resets(policy.Ingress)
}

// refused are the connections that came in and that nothing allows: peer . its port . own port.
func (s site) refused() *Set {
	return &Set{Name: "refused" + s.digit(), Key: Key{s.addrPart(), InetService, InetService}, Dynamic: true,
		Size: refusedSize, Timeout: refusedTime, Comment: "peer . peer's port . own port: may be reset, once"}
}

// refusedRule remembers a birth that nothing allowed, on its way to the workload.
func (g guard) refusedRule(s site, add func(string, ...clause)) {
	if g.expectsResets() {
		add("will be reset", tcpBirth(), s.key(s.addr(true), port(true, "tcp"), port(false, "tcp")).addTo("refused"+s.digit(), 0))
	}
}

// resetRule lets out the answer to such a birth, once: a bare reset as the kernel makes it, of no
// sequence number and without data (RFC 9293, 3.10.7.1). That is all a raw socket can send by it, to
// who has just asked.
func (g guard) resetRule(s site, add func(string, ...clause)) {
	if g.expectsResets() {
		k := s.key(s.addr(false), port(false, "tcp"), port(true, "tcp"))
		add("reset, ack", s.bareReset(), k.in("refused"+s.digit()), k.dynamic("delete", dynsetDelete, "refused"+s.digit(), 0), accept())
	}
}

// bareReset matches a TCP header alone, of flags RST and ACK and sequence number 0.
func (s site) bareReset() clause {
	length, offset, bytes := "ip length 40", uint32(2), uint16(40)
	if s.v6 {
		length, offset, bytes = "ip6 length 20", 4, 20
	}
	e := append(s.family("").exprs, payload(expr.PayloadBaseNetworkHeader, offset, 2), equal(byte(bytes>>8), byte(bytes)),
		load(expr.MetaKeyL4PROTO), equal(byte(identity.TCP)),
		payload(expr.PayloadBaseTransportHeader, 4, 4), equal(0, 0, 0, 0),
		payload(expr.PayloadBaseTransportHeader, 13, 1), equal(tcpRST|tcpACK))
	return clause{length + " tcp sequence 0 tcp flags == 0x14", e}
}
