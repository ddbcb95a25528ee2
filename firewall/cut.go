package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Cut ends the TCP connections in the namespace that the sides no longer allow, and says how many.
// The kernel sends a reset to the peer and gives the program ECONNABORTED. Apply calls it by itself
// where rights shrink; nothing is cut in learn and alert mode.
//
// A connection whose own port has a listener was opened by the peer and needs the right of ingress;
// every other one was opened from here and needs that of egress. Where the listener is gone, either
// right that is written down will do.
func (ns *Namespace) Cut(ctx context.Context, spec Spec) (int, error) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if err := ns.ready(); err != nil {
		return 0, err
	}
	return ns.cut(ctx, spec)
}

func (ns *Namespace) cut(ctx context.Context, spec Spec) (int, error) {
	if spec.Mode != policy.Enforce || !spec.Sides.Egress.Isolated && !spec.Sides.Ingress.Isolated {
		return 0, nil
	}
	d, err := openDiag(ns.file, ns.path)
	if err != nil {
		return 0, err
	}
	defer d.socket.close()
	sockets, err := d.tcp()
	if err != nil {
		return 0, err
	}
	rights := newRights(spec)
	n := 0
	for _, s := range sockets.open {
		if ctx.Err() != nil {
			return n, ctx.Err()
		}
		if rights.allow(s, sockets.listening[s.local.Port()]) {
			continue
		}
		if err := d.destroy(s); err != nil && !errors.Is(err, unix.ENOENT) {
			return n, fmt.Errorf("network namespace %s: cut connection %s to %s: %w; it goes on until one end closes it", ns.path, s.local, s.remote, err)
		} else if err == nil {
			n++
		}
	}
	return n, nil
}

// sockets lists the TCP sockets of the namespace.
func (ns *Namespace) sockets() (tcpSockets, error) {
	d, err := openDiag(ns.file, ns.path)
	if err != nil {
		return tcpSockets{}, err
	}
	defer d.socket.close()
	return d.tcp()
}

// rights answers for single connections what the sets answer for packets.
type rights struct {
	egress, ingress sideRights
	own             map[netip.Addr]bool
}

type sideRights struct {
	open   bool
	exact  map[netip.AddrPort]bool // TCP only
	every  map[netip.Addr]bool
	blocks []policy.Entry
}

func newRights(spec Spec) rights {
	r := rights{newSideRights(spec.Sides.Egress), newSideRights(spec.Sides.Ingress), map[netip.Addr]bool{}}
	for _, ifc := range spec.Interfaces {
		for _, a := range ifc.Addrs {
			r.own[a.Unmap().WithZone("")] = true
		}
	}
	return r
}

func newSideRights(side policy.Side) sideRights {
	s := sideRights{open: !side.Isolated, exact: map[netip.AddrPort]bool{}, every: map[netip.Addr]bool{}}
	for _, e := range side.Entries {
		switch {
		case e.Exact() && e.Protocol == identity.AnyProtocol:
			s.every[e.Peer.Addr()] = true
		case e.Exact() && e.Protocol == identity.TCP:
			s.exact[netip.AddrPortFrom(e.Peer.Addr(), e.Port)] = true
		case e.Protocol == identity.AnyProtocol || e.Protocol == identity.TCP:
			s.blocks = append(s.blocks, e)
		}
	}
	return s
}

// names says whether an entry allows TCP with the peer on a server port.
func (s sideRights) names(peer netip.Addr, port uint16) bool {
	return s.exact[netip.AddrPortFrom(peer, port)] || s.wide(peer, port)
}

// wide is names without the exact entries.
func (s sideRights) wide(peer netip.Addr, port uint16) bool {
	if s.every[peer] {
		return true
	}
	for _, e := range s.blocks {
		if e.Peer.Contains(peer) && (e.Protocol == identity.AnyProtocol || e.Port <= port && port <= e.EndPort) {
			return true
		}
	}
	return false
}

func (r rights) allow(s tcpSocket, listening bool) bool {
	peer := s.remote.Addr()
	if peer.IsLoopback() || peer == s.local.Addr() || r.own[peer] {
		return true
	}
	asked := r.egress.names(peer, s.remote.Port())
	answered := r.ingress.names(peer, s.local.Port())
	if listening {
		return r.ingress.open || answered || !r.egress.open && asked
	}
	return r.egress.open || asked || !r.ingress.open && answered
}

// seeds are the connections that a workload answers and that a set of what may be answered must hold
// from the first packet on, for every such set that comes to be with the changes.
func (spec Spec) seeds(changes []Change, sockets tcpSockets) []Change {
	ingress := newSideRights(spec.Sides.Ingress)
	var elements [2]packing
	for _, s := range sockets.open {
		peer := s.remote.Addr()
		if !sockets.listening[s.local.Port()] || !ingress.open && !ingress.wide(peer, s.local.Port()) {
			continue
		}
		p := &elements[0]
		if peer.Is6() {
			p = &elements[1]
		}
		p.addr(peer)
		p.proto(uint8(identity.TCP))
		p.port(s.local.Port())
		p.done()
	}
	var out []Change
	for _, c := range changes {
		if c.Op != AddChain || c.Name != "served" && c.Name != "in4_wide" {
			continue
		}
		for i, s := range []site{{v6: false}, {v6: true}} {
			if list := elements[i].keys(false); len(list) > 0 {
				name := "served" + s.digit()
				out = append(out, Change{Op: AddElements, Table: c.Table, Name: name, Set: c.Table.set(name), Elements: list, timeout: servedTime})
			}
		}
	}
	return out
}
