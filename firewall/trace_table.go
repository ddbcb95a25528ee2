package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

const (
	// TraceTable is the table of a trace, in each place.
	TraceTable = "bulkhead_trace"
	// traceFirst puts its chains before what others do to the packet, redirections too.
	traceFirst = -500
)

// tracePart is the trace in one network namespace: its tables, which belong to one socket, and the ear
// that hears of the rules that the packet meets.
type tracePart struct {
	place   *Namespace
	at      Place
	stages  map[string]Stage // of a table or chain, by what events say of it
	own     *socket
	ear     *socket
	tables  []*Table
	judging []*Table            // whose rules the packet is to meet
	handles map[string][]uint64 // of our tables' rules, by table and chain
	known   map[uint32]Stage    // packets that our own rule turned tracing on for, and where they were last
}

// listen makes the tables and opens the ears: client's namespace, node, server's namespace.
func (t *Trace) listen() error {
	m := t.match()
	inside := func(ns *Namespace, chain string, hook uint32, stage, guard Stage) *tracePart {
		p := &tracePart{place: ns, at: InWorkload, stages: map[string]Stage{}, judging: ns.tables(InWorkload)}
		inet := &Table{Family: FamilyINet, Name: TraceTable}
		p.add(inet, chain, Hook{Number: hook, Priority: traceFirst}, stage, m(site{v6: t.probe.Server.Is6()}))
		for _, ifc := range ns.interfaces() {
			if ifc.Host == "" {
				p.guard(ifc, guard, m)
			}
		}
		return p
	}
	parts := []*tracePart{inside(t.from, "output", hookOutput, AtClient, AtClientGuard)}
	node := &tracePart{place: t.from, at: AtNode, stages: map[string]Stage{}}
	ends := []*Namespace{t.from}
	if t.to != nil {
		chain, hook := "input", uint32(hookInput)
		if t.to.redirected() {
			chain, hook = arrivalChain, hookPrerouting
		}
		parts = append(parts, inside(t.to, chain, hook, AtServer, AtServerGuard))
		ends = append(ends, t.to)
	}
	for i, ns := range ends {
		node.judging = append(node.judging, ns.tables(AtNode)...)
		for _, ifc := range ns.interfaces() {
			if ifc.Host != "" {
				node.guard(ifc, []Stage{AtClientGuard, AtServerGuard}[i], m)
			}
		}
	}
	if len(node.tables) > 0 {
		parts = append(parts, node)
	}
	for _, p := range parts {
		t.parts = append(t.parts, *p)
		if err := t.parts[len(t.parts)-1].open(); err != nil {
			return err
		}
	}
	return nil
}

// match gives the clauses that match the probe and nothing else.
func (t *Trace) match() func(site) []clause {
	p := t.probe
	return func(s site) []clause {
		s.v6 = p.Server.Is6()
		source, dest := s.key(s.addr(true)), s.key(s.addr(false))
		out := []clause{
			source.is(p.Client.String(), p.Client.AsSlice()), dest.is(p.Server.String(), p.Server.AsSlice()),
			l4(p.Protocol, ""),
		}
		number := func(f field, n uint16) clause {
			return s.key(f).is(fmt.Sprint(n), binary.BigEndian.AppendUint16(nil, n))
		}
		if p.Protocol.IsICMP() {
			request, _ := s.echoTypes()
			return append(out, s.icmpType(request, request), number(s.echoID(), t.ClientPort))
		}
		if p.Protocol == identity.UDP {
			return append(out, number(port(true, "udp"), t.ClientPort), number(port(false, "udp"), p.Port))
		}
		// What follows on a connection that came about was not judged anew.
		return append(out, number(port(true, "tcp"), t.ClientPort), number(port(false, "tcp"), p.Port), tcpBirth())
	}
}

// traceOn turns tracing on for the packet.
func traceOn() clause {
	return clause{"meta nftrace set 1", []expr.Any{
		&expr.Immediate{Register: 1, Data: []byte{1}},
		&expr.Meta{Key: expr.MetaKeyNFTRACE, SourceRegister: true, Register: 1},
	}}
}

func (p *tracePart) add(t *Table, chain string, hook Hook, stage Stage, match []clause) {
	t.Place = p.at
	p.stages[t.Family.String()+" "+t.Name+" "+chain] = stage
	if len(t.Chains) == 0 {
		p.tables = append(p.tables, t)
	}
	t.Chains = append(t.Chains, &Chain{Name: chain, Hook: &hook, Rules: []Rule{newRule("", append(match, traceOn())...)}})
	if t.Family == FamilyINet {
		p.stages["inet "+TableName] = stage
	}
}

// guard adds a chain before the guard of an interface: what the client sends, what the server gets.
func (p *tracePart) guard(ifc Interface, stage Stage, m func(site) []clause) {
	g := guard{ifc: ifc, inside: ifc.Host == ""}
	hook := g.hook(stage == AtClientGuard)
	hook.Priority, hook.Drop = traceFirst, false
	var t *Table
	for _, have := range p.tables {
		if have.Family == FamilyNetdev {
			t = have
		}
	}
	if t == nil {
		t = &Table{Family: FamilyNetdev, Name: TraceTable}
	}
	p.add(t, fmt.Sprintf("%s_%s", []string{"", "sent", "came"}[stage], hook.Device), *hook, stage, m(site{netdev: true}))
	p.stages["netdev "+GuardPrefix+hook.Device] = stage
}

// open makes the tables. They belong to the socket by which the namespace's own rules are written, so
// that a Watch knows them for ours, and do not outlive it.
func (p *tracePart) open() error {
	p.known = map[uint32]Stage{}
	return p.place.locked(func() error {
		own, file := p.place.in, p.place.file
		if p.at == AtNode {
			own, file = p.place.at, p.place.node
		}
		if err := p.hear(file, own.where); err != nil {
			return err
		}
		flags := p.place.features.tableFlags &^ tablePersist
		if flags == 0 {
			p.sweep(own)
		}
		b := newBatch()
		for _, t := range p.tables {
			b.newTable(t, flags)
			for _, c := range t.Chains {
				Change{Op: AddChain, Table: t, Name: c.Name, Chain: c}.encode(b, 0)
				Change{Op: AddRules, Table: t, Name: c.Name, Chain: c}.encode(b, 0)
			}
		}
		if err := own.commit(b); err != nil {
			if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EPERM) {
				return fmt.Errorf("%w; another trace is under way, or somebody made a table %s", err, TraceTable)
			}
			return err
		}
		p.own = own
		return p.readHandles(own)
	})
}

// sweep deletes what a trace left whose daemon died, on a kernel where tables have no owner to go with.
func (p *tracePart) sweep(own *socket) {
	for _, t := range p.tables {
		b := newBatch()
		Change{Op: DeleteTable, Table: t}.encode(b, 0)
		_ = own.commit(b) // mostly there is none
	}
}

// hear opens the ear: the multicast group to which the kernel tells what rules a traced packet meets.
func (p *tracePart) hear(file *os.File, where string) (err error) {
	if p.ear, err = openSocket(file, where); err != nil {
		return err
	}
	const group = 9 // NFNLGRP_NFTRACE (uapi/linux/netfilter/nfnetlink.h)
	if err := unix.SetsockoptInt(p.ear.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
		return fmt.Errorf("%s: listen to nftables' tracing: %w", where, err)
	}
	return nil
}

// readHandles asks for the numbers by which the kernel will name our rules.
func (p *tracePart) readHandles(own *socket) error {
	p.handles = map[string][]uint64{}
	for _, t := range p.judging {
		what := fmt.Sprintf("table %s %s: rules", t.Family, t.Name)
		err := own.dump(unix.NFT_MSG_GETRULE, t.Family, what, func(a *attrs) { a.name(unix.NFTA_RULE_TABLE, t.Name) },
			func(f Family, at []attr) {
				if f == t.Family && cstring(find(at, unix.NFTA_RULE_TABLE)) == t.Name {
					key := t.Family.String() + " " + t.Name + " " + cstring(find(at, unix.NFTA_RULE_CHAIN))
					p.handles[key] = append(p.handles[key], be64(find(at, unix.NFTA_RULE_HANDLE)))
				}
			})
		if err != nil {
			return err
		}
	}
	return nil
}

// close takes the tables away, also where the namespace was closed meanwhile: then they went with it.
func (p *tracePart) close() error {
	err := p.ear.close()
	if p.own == nil {
		return err
	}
	gone := p.place.locked(func() error {
		b := newBatch()
		for _, t := range p.tables {
			Change{Op: DeleteTable, Table: t}.encode(b, 0)
		}
		return p.own.commit(b)
	})
	if errors.Is(gone, os.ErrClosed) || errors.Is(gone, unix.ENOENT) {
		gone = nil
	}
	return errors.Join(err, gone)
}

// interfaces are those of what was last applied.
func (ns *Namespace) interfaces() []Interface {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.applied == nil {
		return nil
	}
	return ns.applied.spec.Interfaces
}

// tables are those in force in one place.
func (ns *Namespace) tables(p Place) []*Table {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	var out []*Table
	if ns.have == nil {
		return nil
	}
	for _, t := range ns.have.Tables {
		if t.Place == p {
			out = append(out, t)
		}
	}
	return out
}
