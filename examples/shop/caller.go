package shop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

const (
	beat        = 250 * time.Millisecond // between calls of a steady edge
	callTimeout = 3 * time.Second        // covers a first IPv6 packet, which may wait 1 s for its neighbour
	patience    = 15 * time.Second       // how long a peer may take to come up before calls to it count
	callsPerTCP = 20                     // calls that share a gRPC-like connection
)

// caller makes the calls of one edge.
type caller struct {
	p     *player
	edge  Edge
	row   int // in the ledger
	conn  net.Conn
	calls int // over conn
	dials int // so far; even ones prefer IPv4, odd ones IPv6
}

// run calls as often as the edge says until ctx ends.
func (c *caller) run(ctx context.Context) error {
	defer c.hangUp()
	every := 1
	if c.edge.When == "rare" && c.edge.Share > 0 {
		every = int(1/c.edge.Share + 0.5)
	}
	began, tried, answered := time.Now(), false, false
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for n := 0; ; n++ {
		if n%every == every/2 || tried && !answered {
			tried = true
			err := c.call(ctx)
			if ctx.Err() != nil {
				return nil
			}
			answered = answered || err == nil
			// Until a peer has come up for the first time, asking it is no failure of the network.
			if err == nil || answered || time.Since(began) > patience {
				c.p.ledger.count(c.row, err)
			}
		}
		if c.edge.When == "start" && answered {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// call makes one call, over the connection at hand where there is one.
func (c *caller) call(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if c.edge.AppProtocol == "dns" {
		return c.p.lookupPeer(ctx, c.edge.From)
	}
	if c.conn == nil {
		if err := c.connect(ctx); err != nil {
			return err
		}
	}
	err := c.talk()
	c.calls++
	if err != nil || !c.keeps() {
		c.hangUp()
	}
	return err
}

// talk makes the exchange. The kubelet's TCP probe says nothing.
func (c *caller) talk() error {
	if c.edge.From == "node" && c.edge.AppProtocol == "redis" {
		return nil
	}
	if err := c.conn.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return err
	}
	return exchange(c.edge.AppProtocol, c.conn)
}

// keeps says whether the connection serves the next call too.
func (c *caller) keeps() bool {
	switch {
	case c.edge.Held:
		return true
	case c.edge.From == "node" || c.edge.When != "steady":
		return false
	}
	return c.edge.AppProtocol == "grpc" && c.calls < callsPerTCP
}

func (c *caller) connect(ctx context.Context) error {
	addrs, port, err := c.p.find(ctx, c.edge)
	if err != nil {
		return err
	}
	addr := addrs[c.dials%2]
	if !addr.IsValid() {
		addr = addrs[(c.dials+1)%2]
	}
	c.dials++
	conn, err := c.p.dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(addr, port).String())
	if err != nil {
		return err
	}
	c.conn, c.calls = conn, 0
	return nil
}

func (c *caller) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close() // what it was for has been said
		c.conn = nil
	}
}

// find gives the addresses and the port by which a client reaches the server of an edge: the node
// goes to the pod itself, the world to the load balancer, a pod by name to the Service.
func (p *player) find(ctx context.Context, e Edge) (addrs [2]netip.Addr, port uint16, err error) {
	if x := p.graph.externalOf(e.To); x != nil {
		if x.DNS != "" { // the shop looks the name up and dials the address (graph.yaml, external)
			if _, err := lookup(ctx, p.dns, x.DNS+"."); err != nil {
				return addrs, 0, err
			}
		}
		addr, err := netip.ParseAddr(x.Address)
		return [2]netip.Addr{addr}, x.Port, err
	}
	if e.From == "node" {
		pod, err := p.graph.PodOf(e.To)
		return pod.Addrs, e.Port, err
	}
	for _, o := range p.graph.Objects() {
		for _, v := range o.Ports {
			if o.Service.Name != e.To || v.Target != e.Port || v.Protocol != e.Protocol || o.External.IsValid() != (e.From == "world") {
				continue
			}
			if e.From == "world" {
				return [2]netip.Addr{o.External}, v.Port, nil
			}
			addrs, err = lookup(ctx, p.dns, o.Name+"."+o.Service.Namespace+"."+domain)
			return addrs, v.Port, err
		}
	}
	return addrs, 0, fmt.Errorf("edge %s → %s %s/%d: no Service leads there", e.From, e.To, e.Protocol, e.Port)
}

// lookupPeer looks one of a service's peers up, as a program that trusts no cache does.
func (p *player) lookupPeer(ctx context.Context, service string) error {
	for _, e := range p.graph.From(service) {
		if s := p.graph.Service(e.To); s != nil && e.AppProtocol != "dns" {
			name := strings.Join([]string{s.VIPs[0].Name, s.Namespace, domain}, ".")
			_, err := lookup(ctx, p.dns, name)
			return err
		}
	}
	return errors.New("look a peer up: the service has none")
}
