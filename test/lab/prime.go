package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// primeAbove is from how many neighbours on a batch of probes is primed. The kernel holds 1,024
// neighbours per family (gc_thresh3, for all namespaces of a machine together) and refuses more; 200
// pods that probe each other over their bridges want thousands. Entries made by hand do not count.
// Below it, pods find each other by ARP and ND as ever.
const primeAbove = 256

// primer holds neighbour entries for the time of a batch of probes.
type primer struct {
	places map[string]*place // per pod namespace
	links  map[string]netlink.Link
	set    map[string][]*netlink.Neigh
}

type neighbour struct {
	at *Pod
	of netip.Addr
}

// prime enters, for every shot between two pods of one bridge, each end as the other's neighbour.
// It returns what takes the entries out again.
func (d *directory) prime(shots []*shot) (func(), error) {
	wanted := map[neighbour]*Pod{}
	for _, s := range shots {
		if s == nil {
			continue
		}
		client := d.byNetNS[s.netns]
		for _, door := range append([]door{{NetNS: d.byAddr[s.server.Addr()].netns}}, s.doors...) {
			server := d.byNetNS[door.NetNS]
			if client == nil || server == nil || client == server || client.Node != server.Node || client.Net != server.Net {
				continue
			}
			for _, pair := range [][2]*Pod{{client, server}, {server, client}} {
				for _, a := range pair[1].Addrs {
					if a.Is4() == s.server.Addr().Is4() {
						wanted[neighbour{pair[0], a}] = pair[1]
					}
				}
			}
		}
	}
	if len(wanted) < primeAbove {
		return func() {}, nil
	}
	p := &primer{places: map[string]*place{}, links: map[string]netlink.Link{}, set: map[string][]*netlink.Neigh{}}
	for n, owner := range wanted {
		if err := p.add(n, owner); err != nil {
			p.undo()
			return nil, err
		}
	}
	return p.undo, nil
}

func (p *primer) link(pod *Pod) (netlink.Link, error) {
	if l, ok := p.links[pod.NetNS]; ok {
		return l, nil
	}
	h, err := openPlace(pod.NetNS)
	if err != nil {
		return nil, err
	}
	p.places[pod.NetNS] = h
	l, err := h.LinkByName("eth0")
	if err != nil {
		return nil, fmt.Errorf("pod %s: eth0: %w", pod, err)
	}
	p.links[pod.NetNS] = l
	return l, nil
}

func (p *primer) add(n neighbour, owner *Pod) error {
	there, err := p.link(owner)
	if err != nil {
		return err
	}
	here, err := p.link(n.at)
	if err != nil {
		return err
	}
	entry := &netlink.Neigh{
		LinkIndex: here.Attrs().Index, State: netlink.NUD_PERMANENT, Family: family4or6(n.of),
		IP: n.of.AsSlice(), HardwareAddr: append(net.HardwareAddr(nil), there.Attrs().HardwareAddr...),
	}
	if err := p.places[n.at.NetNS].NeighSet(entry); err != nil {
		return fmt.Errorf("pod %s: neighbour %s: %w", n.at, n.of, err)
	}
	p.set[n.at.NetNS] = append(p.set[n.at.NetNS], entry)
	return nil
}

// undo takes every entry out and closes what prime opened.
func (p *primer) undo() {
	for netns, h := range p.places {
		for _, entry := range p.set[netns] {
			if err := h.NeighDel(entry); errors.Is(err, unix.ENODEV) {
				break // the interface is gone, and its neighbours with it
			}
		}
		h.close()
	}
}

func family4or6(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
