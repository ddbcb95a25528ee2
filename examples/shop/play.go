package shop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	reportEvery = 200 * time.Millisecond
	maxConns    = 1024 // connections that one listener serves at a time; the rest wait in its backlog
)

// Part is what one process plays.
type Part struct {
	Name   string     // a service or an external of the graph, "node" for its probes, "world" for the shoppers
	Report string     // file for its Report; empty: none
	DNS    netip.Addr // resolver; the zero value is kube-dns's usual address
	From   netip.Addr // local address of its calls; the zero value leaves it to the kernel
	Once   bool       // make each of its calls once, over new connections, listen to nobody, and end
}

type player struct {
	graph  *Graph
	dns    netip.Addr
	dialer net.Dialer
	ledger ledger
}

// Play listens on the part's ports and makes its calls until ctx ends. It returns nil then, and an
// error when the part is unknown, a port is taken or the report cannot be written.
func Play(ctx context.Context, part Part) error {
	g, err := Load()
	if err != nil {
		return err
	}
	p := &player{graph: g, dns: part.DNS}
	if !p.dns.IsValid() {
		p.dns = DNS[0]
	}
	if part.From.IsValid() {
		p.dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(part.From, 0))
	}
	p.ledger.report.Part = part.Name
	if part.Once {
		return p.once(ctx, part)
	}
	ports, err := g.portsOf(part.Name)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, port := range ports {
		if err := listen(ctx, group, port); err != nil {
			return err
		}
	}
	for _, e := range g.From(part.Name) {
		c := &caller{p: p, edge: e, row: p.ledger.add(e)}
		group.Go(func() error { return c.run(ctx) })
	}
	group.Go(func() error { return p.keepReport(ctx, part.Report) })
	return group.Wait()
}

// once makes every call of a part, rare ones and those of its start too, as if it had just started.
func (p *player) once(ctx context.Context, part Part) error {
	if _, err := p.graph.portsOf(part.Name); err != nil {
		return err
	}
	for _, e := range p.graph.From(part.Name) {
		c := &caller{p: p, edge: e, row: p.ledger.add(e)}
		err := c.call(ctx)
		c.hangUp()
		p.ledger.count(c.row, err)
	}
	if part.Report == "" {
		return nil
	}
	return p.ledger.write(part.Report)
}

// portsOf gives what a part listens on; node and world only call.
func (g *Graph) portsOf(name string) ([]Port, error) {
	if name == "node" || name == "world" {
		return nil, nil
	}
	if x := g.externalOf(name); x != nil {
		return []Port{{Name: x.AppProtocol, Port: x.Port, Protocol: x.Protocol, AppProtocol: x.AppProtocol}}, nil
	}
	if s := g.Service(name); s != nil {
		return s.Ports, nil
	}
	return nil, fmt.Errorf("part %q: neither a service nor an external of %s, nor node or world", name, g.Name)
}

// listen opens a port on every address of both families and serves it in group until ctx ends.
func listen(ctx context.Context, group *errgroup.Group, port Port) error {
	address := fmt.Sprintf(":%d", port.Port)
	if port.Protocol == "UDP" {
		c, err := net.ListenPacket("udp", address)
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { c.Close() })
		group.Go(func() error { return ended(ctx, serveDNS(c)) })
		return nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	group.Go(func() error { return ended(ctx, accept(ctx, l, port.AppProtocol)) })
	return nil
}

// accept serves connections until the listener is closed, and waits for the last to end.
func accept(ctx context.Context, l net.Listener, app string) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, maxConns)
	for {
		room <- struct{}{}
		c, err := l.Accept()
		if err != nil {
			return err
		}
		wg.Add(1)
		go func() { // counted by wg, ends with its connection or ctx
			defer wg.Done()
			defer func() { <-room }()
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			_ = serve(app, c) // a client that breaks off or talks nonsense is not the server's fault
		}()
	}
}

// ended hides the error by which a closed listener says that ctx ended.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (p *player) keepReport(ctx context.Context, path string) error {
	if path == "" {
		return nil
	}
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		if err := p.ledger.write(path); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return p.ledger.write(path)
		case <-tick.C:
		}
	}
}
