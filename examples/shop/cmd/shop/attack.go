package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// tried is what an attacker says of its own doing, as JSON on standard output.
type tried struct {
	Kind      string `json:"kind"`
	Sent      int    `json:"sent"`      // connections tried, or frames
	Succeeded int    `json:"succeeded"` // connections that opened; frames get no answer
	Error     string `json:"error,omitempty"`
}

const (
	scanTimeout    = 400 * time.Millisecond // per port: an open one answers in less than 1 ms
	connectTimeout = 1500 * time.Millisecond
	scanners       = 250 // ports tried at a time
)

// attack does what the demo's attacker does from inside a workload. It only ever aims at the
// address that it is given.
func attack(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("shop attack", flag.ContinueOnError)
	target := f.String("to", "", "victim, address:port; for scan its port is the last one tried")
	as := f.String("as", "", "for spoof: the sender's address to lie about")
	if len(args) == 0 {
		return errors.New("attack: want connect, scan, raw or spoof")
	}
	kind := args[0]
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	to, err := netip.ParseAddrPort(*target)
	if err != nil {
		return fmt.Errorf("attack: %w", err)
	}
	t := tried{Kind: kind}
	switch kind {
	case "connect":
		err = t.connect(ctx, to, connectTimeout)
	case "scan":
		t.scan(ctx, to)
	case "raw":
		err = t.frames(netip.Addr{}, to)
	case "spoof":
		var liar netip.Addr
		if liar, err = netip.ParseAddr(*as); err == nil {
			err = t.frames(liar, to)
		}
	default:
		return fmt.Errorf("attack %q: want connect, scan, raw or spoof", kind)
	}
	if err != nil {
		t.Error = err.Error()
	}
	return json.NewEncoder(os.Stdout).Encode(t)
}

func (t *tried) connect(ctx context.Context, to netip.AddrPort, timeout time.Duration) error {
	t.Sent++
	d := net.Dialer{Timeout: timeout}
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	t.Succeeded++
	return c.Close()
}

// scan tries every port from 1 to that of the target.
func (t *tried) scan(ctx context.Context, to netip.AddrPort) {
	ports := make(chan uint16)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range scanners {
		wg.Add(1)
		go func() { // ends with ports
			defer wg.Done()
			for port := range ports {
				var one tried
				_ = one.connect(ctx, netip.AddrPortFrom(to.Addr(), port), scanTimeout) // closed and dropped alike count as not opened
				mu.Lock()
				t.Sent += one.Sent
				t.Succeeded += one.Succeeded
				mu.Unlock()
			}
		}()
	}
	for port := 1; port <= int(to.Port()); port++ {
		ports <- uint16(port)
	}
	close(ports)
	wg.Wait()
}

// frames sends frames of our own making: from our own address, or from that of somebody else.
func (t *tried) frames(from netip.Addr, to netip.AddrPort) error {
	w, err := openWire()
	if err != nil {
		return err
	}
	defer w.Close()
	if !from.IsValid() {
		from = w.addr
	}
	if err := w.strike(from, to); err != nil {
		return err
	}
	t.Sent = 2
	return nil
}
