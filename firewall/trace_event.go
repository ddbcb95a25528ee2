package firewall

import (
	"golang.org/x/sys/unix"
)

// What the kernel tells of a packet that is traced.
// Source: enum nft_trace_attributes and nft_trace_types in uapi/linux/netfilter/nf_tables.h.
const (
	nftMsgTrace = 17

	nftaTraceTable   = 1
	nftaTraceChain   = 2
	nftaTraceHandle  = 3
	nftaTraceType    = 4
	nftaTraceVerdict = 5
	nftaTraceID      = 6
	nftaTracePolicy  = 16

	traceByPolicy = 1 // the chain's policy decided
	traceByRule   = 3
)

// traceEvent is one rule, or a chain's policy, that the probe met.
type traceEvent struct {
	stage Stage
	table string // family and name
	chain string
	rule  Rule // zero for a policy, and for rules of others
	ours  bool // a table that we judge by
	drop  bool
}

// read takes what was told since the last time. Packets that are not the probe are left out: others may
// trace as well.
func (p *tracePart) read() ([]traceEvent, error) {
	var out []traceEvent
	err := p.ear.receive(func(m message) bool {
		if m.kind == unix.NFNL_SUBSYS_NFTABLES<<8|nftMsgTrace && len(m.body) >= genSize {
			if e, ok := p.event(Family(m.body[0]), m.body[genSize:]); ok {
				out = append(out, e)
			}
		}
		return true
	})
	return out, err
}

// event reads one message. In a foreign table the packet is where it was last.
func (p *tracePart) event(family Family, body []byte) (e traceEvent, ok bool) {
	var kind, id uint32
	var handle uint64
	verdict, policy := int32(1), int32(1)
	for at, v := range decodeAttributes(body) {
		switch at {
		case nftaTraceTable:
			e.table = watchFamilies[byte(family)] + " " + watchText(v)
		case nftaTraceChain:
			e.chain = watchText(v)
		case nftaTraceHandle:
			handle = be64(v)
		case nftaTraceType:
			kind = be32(v)
		case nftaTraceID:
			id = be32(v)
		case nftaTracePolicy:
			policy = int32(be32(v))
		case nftaTraceVerdict:
			for at, v := range decodeAttributes(v) {
				if at == unix.NFTA_VERDICT_CODE {
					verdict = int32(be32(v))
				}
			}
		}
	}
	stage, ours := p.stages[e.table]
	last, known := p.known[id]
	if mine, is := p.stages[e.table+" "+e.chain]; is {
		stage, known = mine, true // the rule that turned tracing on
	} else if !ours && p.at == AtNode {
		stage = onNode
	} else if !ours {
		stage = last
	}
	if !known {
		return e, false
	}
	if stage != onNode {
		p.known[id] = stage
	}
	e.stage, e.ours = stage, ours
	e.drop = kind == traceByRule && verdict == 0 || kind == traceByPolicy && policy == 0 // NF_DROP
	e.rule = p.rule(e.table, e.chain, handle)
	return e, true
}

// rule finds a rule of ours by its number.
func (p *tracePart) rule(table, chain string, handle uint64) Rule {
	for i, h := range p.handles[table+" "+chain] {
		if h != handle {
			continue
		}
		for _, t := range p.judging {
			if t.Family.String()+" "+t.Name == table {
				if c := t.chain(chain); c != nil && i < len(c.Rules) {
					return c.Rules[i]
				}
			}
		}
	}
	return Rule{}
}
