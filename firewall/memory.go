package firewall

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// What the sets served and clients remember decides over answers. When rights shrink, what no longer
// has one is forgotten; when a guard begins to judge, it is told what was asked before.

// forget deletes from the tables what may no longer be answered, or may no longer answer.
func (ns *Namespace) forget(tables []*Table, spec Spec) error {
	r := sync.OnceValue(func() rights { return ns.rights(spec) })
	for try := 1; ; try++ {
		changes, err := ns.stale(tables, r)
		if err == nil {
			err = ns.commit(changes)
		}
		// An element may have expired since it was read.
		if !stale(err) || try == applyTries {
			return err
		}
	}
}

// stale finds what the tables remember and the rights do not cover.
func (ns *Namespace) stale(tables []*Table, r func() rights) ([]Change, error) {
	var out []Change
	for _, t := range tables {
		for _, s := range t.Sets {
			client := strings.HasPrefix(s.Name, "clients")
			if !client && !strings.HasPrefix(s.Name, "served") {
				continue
			}
			remembered, err := ns.remembered(t, s)
			if err != nil {
				return nil, err
			}
			var gone []Element
			for _, e := range remembered {
				k := s.readRight(e)
				if client && !r().egress.allow(k) || !client && !r().allowServed(k) {
					gone = append(gone, e)
				}
			}
			if len(gone) > 0 {
				out = append(out, Change{Op: DeleteElements, Table: t, Name: s.Name, Set: s, Elements: gone})
			}
		}
	}
	return out, nil
}

// remembered reads what packets put in a dynamic set.
func (ns *Namespace) remembered(t *Table, s *Set) ([]Element, error) {
	got := &Set{Name: s.Name, Key: s.Key}
	err := ns.socket(t.Place).readElements(t, got, "table "+t.Name)
	return got.Elements, err
}

// readRight reads an element of served (peer . protocol . own port) or of clients (peer . peer's
// port . own port) as the right that it stands on.
func (s *Set) readRight(e Element) right {
	n := s.Key[0].padded()
	addr, _ := netip.AddrFromSlice([]byte(e.Key[:n]))
	rest := []byte(e.Key[n:])
	if s.Key[1] == InetService {
		return right{addr, identity.UDP, binary.BigEndian.Uint16(rest)}
	}
	return right{addr, identity.Protocol(rest[0]), binary.BigEndian.Uint16(rest[4:])}
}

// widens says whether a change takes exact keys from ingress whose peers stay allowed by a right that
// names no port. What those asked was not remembered, and must be from now on to be answered.
func (c Change) widens(ingress func() sideRights) bool {
	if c.Op != DeleteElements || c.Name != "ingress4" && c.Name != "ingress6" {
		return false
	}
	for _, e := range c.Elements {
		if ingress().unnamed(c.Set.readRight(e)) {
			return true
		}
	}
	return false
}

// deniesAsking says whether a change takes rights of egress away that answers may have passed by, so
// that what they answered was not remembered.
func (c Change) deniesAsking() bool {
	return c.Op == AddElements && denySet(c.Name) && strings.HasPrefix(c.Name, policy.Egress.String())
}

// unasks says whether a change takes exact keys of egress away. Segments from such a peer and port
// passed as answers of a server, so that what came in from there was not remembered.
func (c Change) unasks() bool {
	return c.Op == DeleteElements && (c.Name == "egress4" || c.Name == "egress6")
}

// warming lets guards remember what is asked by exact keys, before those are taken away, and no
// longer than that.
func warming(spec Spec, changes []Change) (before, after []Change) {
	ingress := sync.OnceValue(func() sideRights { return newSideRights(spec.Sides.Ingress) })
	for _, c := range changes {
		if !c.widens(ingress) {
			continue
		}
		chain := c.Table.chain("served" + c.Name[len("ingress"):])
		if chain == nil || chain.warm == nil {
			continue
		}
		flush := Change{Op: FlushChain, Table: c.Table, Name: chain.Name, Chain: chain}
		add := Change{Op: AddRules, Table: c.Table, Name: chain.Name, Chain: chain.warm}
		before = append(before, flush, add)
		add.Chain = chain
		after = append(after, flush, add)
	}
	return before, after
}

// seeds are what a set of what may be answered must hold from the first packet on, for every such set
// that comes to be with the changes, or that more rights stand on than before: TCP connections that
// are there, and in a guard what the namespace itself remembers.
func (ns *Namespace) seeds(spec Spec, changes []Change) ([]Change, error) {
	ingress := sync.OnceValue(func() sideRights { return newSideRights(spec.Sides.Ingress) })
	var tables []*Table
	unasked, all := map[right]bool{}, false
	for _, c := range changes {
		guard := c.Table.Family == FamilyNetdev
		needed := guard && (c.Op == AddRules && c.Name == "sender" || c.deniesAsking()) ||
			c.Op == AddChain && c.Name == "in4_wide" || c.widens(ingress) && (guard || c.Table.chain("in4_wide") != nil)
		all = all || needed
		if c.unasks() && (guard || c.Table.chain("in4_wide") != nil) {
			needed = true
			for _, e := range c.Elements {
				unasked[c.Set.readRight(e)] = true
			}
		}
		if needed && c.Table.set("served4") != nil && !slices.Contains(tables, c.Table) {
			tables = append(tables, c.Table)
		}
	}
	if len(tables) == 0 {
		return nil, nil
	}
	sockets, err := ns.sockets()
	if err != nil {
		return nil, err
	}
	answering := spec.answering(sockets, func(s tcpSocket) bool {
		return all || unasked[right{s.remote.Addr(), identity.TCP, s.remote.Port()}]
	})
	var out []Change
	for _, t := range tables {
		for i, s := range families {
			name := "served" + s.digit()
			add := func(list []Element, c Change) {
				if c.Elements = list; len(list) > 0 {
					out = append(out, c)
				}
			}
			change := Change{Op: AddElements, Table: t, Name: name, Set: t.set(name)}
			tcp := change
			tcp.timeout = servedTime
			add(answering[i], tcp)
			if t.Family != FamilyNetdev {
				continue
			}
			asked, err := ns.remembered(ns.placed(&Ruleset{Tables: []*Table{{Place: InWorkload, Family: FamilyINet, Name: TableName}}}).Tables[0], t.set(name))
			if err != nil {
				return nil, err
			}
			add(asked, change)
		}
	}
	return out, nil
}

// answering are the keys of those TCP connections that the workload answers by a right that names no
// port, IPv4 and IPv6.
func (spec Spec) answering(sockets tcpSockets, those func(tcpSocket) bool) [2][]Element {
	ingress := newSideRights(spec.Sides.Ingress)
	var p [2]packing
	for _, s := range sockets.open {
		peer, port := s.remote.Addr(), s.local.Port()
		if !those(s) || !sockets.listening[port] || !ingress.unnamed(right{peer, identity.TCP, port}) {
			continue
		}
		i := 0
		if peer.Is6() {
			i = 1
		}
		p[i].addr(peer)
		p[i].proto(uint8(identity.TCP))
		p[i].port(port)
		p[i].done()
	}
	return [2][]Element{p[0].keys(false), p[1].keys(false)}
}
