package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// pair is a client namespace and a server's address, with one kind of rules in between.
type pair struct {
	name   string
	client string // path of the client's namespace
	server netip.Addr
}

// load is one kind of traffic; run does n operations in the client's namespace.
type load struct {
	name string
	unit string
	n    int
	run  func(server netip.Addr, n int) error
}

const (
	connectPort = 7001 // accepts and closes
	echoPort    = 7002 // one byte forth and back
	sinkPort    = 7003 // reads all
)

// loads are the three that matter to a service: a new connection each time, requests on a kept
// connection, and bulk.
var loads = []load{
	{"new TCP connection", "connections", 400, connections},
	{"request/response", "requests", 4000, requests},
	{"bulk", "MiB", 256, bulk},
}

func target(server netip.Addr, port uint16) string {
	return netip.AddrPortFrom(server, port).String()
}

// connections opens n connections one after another and waits for the server to close each.
func connections(server netip.Addr, n int) error {
	var b [1]byte
	for i := range n {
		c, err := net.DialTimeout("tcp", target(server, connectPort), 2*time.Second)
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		// Reset instead of TIME_WAIT, so that thousands of rounds never run out of ports.
		if err := c.(*net.TCPConn).SetLinger(0); err != nil {
			return err
		}
		_, err = c.Read(b[:])
		c.Close()
		if err != nil && err != io.EOF {
			return fmt.Errorf("connection %d: %w", i, err)
		}
	}
	return nil
}

// requests sends n requests of one byte on one connection, each after the answer to the last.
func requests(server netip.Addr, n int) error {
	c, err := net.DialTimeout("tcp", target(server, echoPort), 2*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	var b [1]byte
	for i := range n {
		if _, err := c.Write(b[:]); err != nil {
			return fmt.Errorf("request %d: %w", i, err)
		}
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return fmt.Errorf("answer %d: %w", i, err)
		}
	}
	return nil
}

// bulk sends n MiB on one connection and waits until the server has read them.
func bulk(server netip.Addr, n int) error {
	c, err := net.DialTimeout("tcp", target(server, sinkPort), 2*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	block := make([]byte, 1<<20)
	for range n {
		if _, err := c.Write(block); err != nil {
			return err
		}
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	_, err = io.ReadAll(c)
	return err
}

// serve answers all three loads on addr until its listeners are closed. It is called in the
// server's namespace; the sockets stay there.
func serve(addr netip.Addr) (stop func(), err error) {
	var open []net.Listener
	stop = func() {
		for _, l := range open {
			l.Close()
		}
	}
	for port, handle := range map[uint16]func(net.Conn){
		connectPort: func(c net.Conn) {},
		echoPort: func(c net.Conn) {
			var b [1]byte
			for {
				if _, err := io.ReadFull(c, b[:]); err != nil {
					return
				}
				if _, err := c.Write(b[:]); err != nil {
					return
				}
			}
		},
		sinkPort: func(c net.Conn) { io.Copy(io.Discard, c) },
	} {
		l, err := net.Listen("tcp", target(addr, port))
		if err != nil {
			stop()
			return nil, err
		}
		open = append(open, l)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { defer c.Close(); handle(c) }()
			}
		}()
	}
	return stop, nil
}

// cpu is what this process, both ends and the kernel's work for them, has used so far. Traffic over
// a veth is processed in the sender's context, so that the process's own time holds it.
func cpu() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// pin keeps this process on one core, so that a round's CPU time is not spread over two clocks.
func pin(core int) error {
	var set unix.CPUSet
	set.Set(core)
	// Every thread that exists; those that come later inherit it.
	return eachThread(func(tid int) error { return unix.SchedSetaffinity(tid, &set) })
}
