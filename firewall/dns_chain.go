package firewall

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

const (
	// AnswerQueue is the kernel queue in which DNS answers wait, in every workload's own namespace.
	AnswerQueue = 4711
	// answersPerSecond bounds how many answers are read, and with them what a workload can make us do.
	// What is beyond passes unread.
	answersPerSecond = 1000
	// PrefixAnswer begins what guards log of DNS answers, see answerLogChain.
	PrefixAnswer = "bh dns"
)

// reads says that DNS answers wait until they are read: some policy names names, whatever the mode, so
// that they are known when the mode changes.
func (spec Spec) reads() bool {
	return len(spec.Sides.Egress.Names) > 0 && len(spec.Resolvers) > 0 && !spec.NoQueue
}

// Hears says that DNS answers are read at all, in the queue or from what the guards tell.
func (spec Spec) Hears() bool { return spec.reads() || spec.HearsOnly() }

// HearsOnly says that answers are read, and do not wait for it.
func (spec Spec) HearsOnly() bool {
	wanted := spec.Hear || len(spec.Sides.Egress.Names) > 0
	return wanted && !spec.reads() && len(spec.Resolvers) > 0 && spec.guarded()
}

// NoAnswerQueue says that this kernel, as far as it was asked, has no queue for answers.
func NoAnswerQueue() bool {
	kernel.Lock()
	defer kernel.Unlock()
	return kernel.known != nil && kernel.known.noQueue
}

// answersChain gives answers of the workload's resolvers to the queue. That is a verdict: what comes
// back from the queue is accepted. So only what the other chains would accept goes there: datagrams
// that answer what was sent, segments of connections that were judged at birth, and where segments are
// judged, those whose pair an exact key allows.
func answersChain(spec Spec) *Chain {
	c := &Chain{Name: "answers"}
	add := func(comment string, cl ...clause) { c.Rules = append(c.Rules, newRule(comment, cl...)) }
	add("", onLoopback(false), accept())
	for _, s := range families {
		from := s.key(s.addr(true)).in("resolvers" + s.digit())
		add("", udp(), s.key(s.addr(true), port(true, "udp"), port(false, "udp")).in("clients"+s.digit()), from,
			atMost(answersPerSecond), queue(spec))
		switch {
		case spec.birthsOnly(policy.Ingress):
			add("", tcpLater(), from, atMost(answersPerSecond), queue(spec))
		case spec.lists(policy.Egress):
			allowed := s.key(s.addr(true), protocolField(), port(true, "tcp")).in(policy.Egress.String() + s.digit())
			add("", tcpLater(), from, allowed, atMost(answersPerSecond), queue(spec))
		}
	}
	return c
}

// fromPort53 matches TCP and UDP that come from port 53, and little else.
func fromPort53() clause {
	return clause{"th sport 53", []expr.Any{payload(expr.PayloadBaseTransportHeader, 0, 2), equal(0, 53)}}
}

func jumpTo(chain string) clause {
	return clause{"jump " + chain, []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}}
}

// queue hands a packet to the daemon. With nobody there to read, it passes, or where answers are to be
// closed it is dropped.
func queue(spec Spec) clause {
	if spec.AnswersClosed {
		return clause{fmt.Sprintf("queue to %d", AnswerQueue), []expr.Any{&expr.Queue{Num: AnswerQueue, Total: 1}}}
	}
	return clause{fmt.Sprintf("queue flags bypass to %d", AnswerQueue),
		[]expr.Any{&expr.Queue{Num: AnswerQueue, Total: 1, Flag: expr.QueueFlagBypass}}}
}

// target is the same for kernels without nft's queue: the iptables target, which nft's compatibility
// layer loads.
// Source: struct xt_NFQ_info_v3 in uapi/linux/netfilter/xt_NFQUEUE.h.
func target(q *expr.Queue) *expr.Target {
	info := binary.NativeEndian.AppendUint16(nil, q.Num)
	info = binary.NativeEndian.AppendUint16(info, q.Total)
	info = binary.NativeEndian.AppendUint16(info, uint16(q.Flag))
	info = append(info, 0, 0) // aligned to eight bytes
	return &expr.Target{Name: "NFQUEUE", Rev: 3, Info: (*xt.Unknown)(&info)}
}

// probeQueue finds out in what form this kernel has a queue, by making a rule with it and deleting it in
// one transaction.
func (f *features) probeQueue(s *socket) {
	try := func(compat bool) error {
		t := &Table{Family: FamilyINet, Name: TableName + "-probe"}
		c := &Chain{Name: "queue", Rules: []Rule{newRule("", queue(Spec{}))}}
		b := newBatch()
		b.compat = compat
		b.newTable(t, f.tableFlags)
		for _, op := range []Op{AddChain, AddRules, DeleteTable} {
			Change{Op: op, Table: t, Name: c.Name, Chain: c}.encode(b, 0)
		}
		return s.commit(b)
	}
	if try(false) == nil {
		return
	}
	f.compat = true
	if err := try(true); err != nil {
		f.noQueue = true
		f.warnings = append(f.warnings, "this kernel has neither nft's queue nor the NFQUEUE target: DNS answers cannot be held, "+
			"and what policy allows by DNS name stays closed ("+err.Error()+")")
	}
}

// answerLogChain tells us of answers outside of the namespace, where nobody in it can forge one: the
// queue says when an answer arrives, this what it says. It is on the way to the workload.
func (g guard) answerLogChain() *Chain {
	c := &Chain{Name: "answers", records: true}
	for _, s := range []site{{netdev: true}, {v6: true, netdev: true}} {
		from := s.key(s.addr(true)).in("resolvers" + s.digit())
		for _, p := range []identity.Protocol{identity.TCP, identity.UDP} {
			name := protocolNames[int(p)]
			sport := clause{name + " sport 53", []expr.Any{payload(expr.PayloadBaseTransportHeader, 0, 2), equal(0, 53)}}
			c.Rules = append(c.Rules, newRule("", l4(p, ""), sport, from, atMost(answersPerSecond), g.logAnswer()))
		}
	}
	return c
}

// logAnswer logs whole packets to the group of the workload behind this guard.
func (g guard) logAnswer() clause {
	group := AnswerGroup(g.ifc)
	return clause{fmt.Sprintf("log prefix %q group %d snaplen %d", PrefixAnswer, group, answerSnapLen),
		[]expr.Any{&expr.Log{
			Key:     1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_SNAPLEN,
			Group:   group,
			Snaplen: answerSnapLen,
			Data:    []byte(PrefixAnswer),
		}}}
}

// answerSnapLen is how much of an answer is logged: all of it.
const answerSnapLen = 65535

// AnswerGroup is the NFLOG group in the node's namespace to which the guard of an interface logs DNS
// answers. Two interfaces of one node share one only where the numbers of their host's ends are 32,768
// apart; the second is then read without its guard's word, which says so in a warning.
func AnswerGroup(ifc Interface) uint16 { return 1<<15 + uint16(ifc.HostIndex)&0x7fff }
