package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// nodeAddrs lists the addresses of the daemon's own namespace, IPv6 link-local ones included: the
// node probes its workloads from any of them. The link-local address of a bridge's port is left out:
// the bridge speaks for it, and there is one for every workload.
func nodeAddrs() ([]netip.Addr, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("links of this node: %w", err)
	}
	port := map[int]bool{}
	for _, l := range links {
		port[l.Attrs().Index] = l.Attrs().MasterIndex != 0
	}
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("addresses of this node: %w", err)
	}
	var out []netip.Addr
	for _, a := range list {
		addr, ok := netip.AddrFromSlice(a.IP)
		if addr = addr.Unmap(); ok && !(addr.Is6() && addr.IsLinkLocalUnicast() && port[a.LinkIndex]) {
			out = append(out, addr)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), nil
}

// routineNode keeps the node's addresses in the index up to date until ctx ends.
func (d *Daemon) routineNode(ctx context.Context) error {
	events := make(chan netlink.AddrUpdate, 64)
	done := make(chan struct{})
	defer func() {
		close(done)
		for range events { // the library's goroutine ends when it sees done; it may be sending
		}
	}()
	lost := func(err error) {
		d.log.Warn("address events lost", slog.Any("err", err))
	}
	if err := netlink.AddrSubscribeWithOptions(events, done, netlink.AddrSubscribeOptions{ErrorCallback: lost}); err != nil {
		close(events)
		return fmt.Errorf("watch this node's addresses: %w", err)
	}
	if err := d.refreshNode(); err != nil { // what changed before the subscription
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, open := <-events:
			if !open {
				events = make(chan netlink.AddrUpdate)
				close(events)
				return fmt.Errorf("watch this node's addresses: the kernel closed the socket")
			}
			if err := d.refreshNode(); err != nil {
				d.log.Warn("node addresses not read", slog.Any("err", err))
			}
		}
	}
}

// refreshNode reads the node's addresses, adds the gateways that CNI named (they are the node's in
// every reference plugin, and may sit on a bridge that is still down), and tells the index.
func (d *Daemon) refreshNode() error {
	addrs, err := nodeAddrs()
	if err != nil {
		return err
	}
	d.mu.Lock()
	for _, w := range d.workloads {
		addrs = append(addrs, w.gateways()...)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	same := slices.Equal(addrs, d.nodeAddrs)
	d.nodeAddrs = addrs
	d.mu.Unlock()
	if !same {
		d.index.SetNode(addrs)
		d.kickAll("node addresses")
	}
	return nil
}
