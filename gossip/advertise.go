package gossip

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// advertised finds the address under which others reach this node: the one that is configured; else the
// one that it listens on; else, where it listens on all, the one from which the kernel would send to the
// first seed that it has a route to; else the first that is not of this host alone.
//
// Errors: there is none.
func advertised(ctx context.Context, c *Config) (netip.AddrPort, error) {
	if a := c.Advertise; a.IsValid() {
		return netip.AddrPortFrom(a.Addr(), cmp.Or(a.Port(), c.Bind.Port())), nil
	}
	if !c.Bind.Addr().IsUnspecified() {
		return c.Bind, nil
	}
	// In the Internet's documentation ranges (RFC 5737, RFC 3849): nobody is there, but a route is.
	towards := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:9"), netip.MustParseAddrPort("[2001:db8::1]:9")}
	seeds, err := resolveSeeds(ctx, c.Seeds, c.Bind.Port())
	if err != nil {
		c.Log.Info("seeds are not all known yet", "err", err)
	}
	for _, to := range append(seeds, towards...) {
		if from, ok := sourceTo(to.Addr()); ok && reaches(c.Bind.Addr(), from) {
			return netip.AddrPortFrom(from, c.Bind.Port()), nil
		}
	}
	own, err := interfaceAddrs()
	if err != nil {
		return netip.AddrPort{}, err
	}
	for _, a := range own {
		if reaches(c.Bind.Addr(), a) {
			return netip.AddrPortFrom(a, c.Bind.Port()), nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("no address that other nodes reach this one at; set cluster.advertise")
}

// reaches says whether a socket bound to all addresses hears what is sent to one: those of "::" hear both
// families.
func reaches(bind, a netip.Addr) bool {
	return !a.IsLoopback() && !a.IsLinkLocalUnicast() && (bind.Is6() || a.Is4())
}

// sourceTo is the address that the kernel would send from; nothing is sent.
func sourceTo(to netip.Addr) (netip.Addr, bool) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9)))
	if err != nil {
		return netip.Addr{}, false // no route
	}
	defer conn.Close()
	from := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("")
	return from, from.IsGlobalUnicast()
}

// interfaceAddrs lists this host's addresses, IPv4 first.
func interfaceAddrs() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, x := range list {
		if p, ok := x.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(p.IP); ok && a.Unmap().IsGlobalUnicast() {
				out = append(out, a.Unmap())
			}
		}
	}
	slices.SortFunc(out, func(a, b netip.Addr) int { return cmp.Or(cmp.Compare(b2i(a.Is6()), b2i(b.Is6())), a.Compare(b)) })
	return out, nil
}
