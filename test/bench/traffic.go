package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// pair is a client namespace and a server's address, with one kind of rules in between.
type pair struct {
	rules
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

	datagramPort = 7053 // sends back what it gets
)

// loads are those that matter to a service: a new connection each time, requests on a kept
// connection, bulk, and questions and answers in datagrams. A turn lasts some ten milliseconds, so
// that a round is over before the machine is another one.
var loads = []load{
	{"new TCP connection", "connections", 100, connections},
	{"request/response", "requests", 600, requests},
	{"bulk, per MiB", "MiB", 32, bulk},
	{"UDP question/answer", "requests", 600, datagrams},
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

// datagrams sends n questions of 40 bytes from one socket, each after the answer to the last.
func datagrams(server netip.Addr, n int) error {
	c, err := net.Dial("udp", target(server, datagramPort))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	var b [40]byte
	for i := range n {
		if _, err := c.Write(b[:]); err != nil {
			return fmt.Errorf("question %d: %w", i, err)
		}
		if _, err := c.Read(b[:]); err != nil {
			return fmt.Errorf("answer %d: %w", i, err)
		}
	}
	return nil
}

// serve answers all loads on addr until its listeners are closed. It is called in the
// server's namespace; the sockets stay there.
func serve(addr netip.Addr) (stop func(), err error) {
	var open []io.Closer
	stop = func() {
		for _, l := range open {
			l.Close()
		}
	}
	u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, datagramPort)))
	if err != nil {
		return nil, err
	}
	open = append(open, u)
	go func() {
		var b [512]byte
		for {
			n, from, err := u.ReadFromUDPAddrPort(b[:])
			if err != nil {
				return
			}
			u.WriteToUDPAddrPort(b[:n], from)
		}
	}()
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
