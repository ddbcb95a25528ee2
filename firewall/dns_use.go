package firewall

import (
	"fmt"
	"net/netip"
)

// InUse says with which addresses the workload has to do now: TCP connections that are there, in whatever
// state but closed, and peers to which a datagram was sent within [UDPTimeout].
func (ns *Namespace) InUse() (map[netip.Addr]bool, error) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if err := ns.ready(); err != nil {
		return nil, err
	}
	sockets, err := ns.sockets()
	if err != nil {
		return nil, fmt.Errorf("addresses in use: %w", err)
	}
	out := map[netip.Addr]bool{}
	for _, s := range sockets.open {
		out[s.remote.Addr().WithZone("")] = true
	}
	if ns.have == nil {
		return out, nil
	}
	for _, t := range ns.have.Tables {
		for _, name := range []string{"clients4", "clients6"} {
			s := t.set(name)
			if s == nil {
				continue
			}
			asked, err := ns.remembered(t, s)
			if err != nil {
				return nil, fmt.Errorf("addresses in use: %w", err)
			}
			for _, e := range asked {
				out[s.readRight(e).peer] = true
			}
		}
	}
	return out, nil
}
