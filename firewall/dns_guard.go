package firewall

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Bounds of what guards told that nobody has asked for yet.
const (
	guardAnswersKept  = 512
	guardAnswersBytes = 2 << 20
	guardStreamsKept  = 64 // messages of one DNS over TCP connection
	guardBuffer       = 2 << 20

	// hearSnapLen is how much of a packet is read where nothing waits for it: many workloads are only
	// heard, so that their buffers should be small. guardHeaders is what else a message holds.
	hearSnapLen  = 4096
	guardHeaders = 4096
)

// guardAnswers is what the guards of one workload logged of DNS answers on their way in. A guard logs a
// packet before the namespace has it, so that it is there by the time the same packet waits in the
// queue: nothing ever waits here.
//
// Who can inject packets inside of the namespace (root there, through a tunnel device) can put anything
// in the queue, and nothing here.
type guardAnswers struct {
	sock    *kernelSocket
	dgrams  []guardDatagram // oldest first
	bytes   int             // of their payloads
	streams dnsStreams
	waiting map[streamKey][][]byte // whole messages of connections, until the queue asks
}

type guardDatagram struct {
	server  netip.Addr
	port    uint16
	payload []byte
	partial bool // of a first fragment
}

// openGuards takes the groups to which the guards log, where all interfaces have one.
func (a *Answers) openGuards() error {
	for _, ifc := range a.cfg.Interfaces {
		if ifc.Host == "" {
			return nil
		}
	}
	if len(a.cfg.Interfaces) == 0 {
		return nil
	}
	sock, err := openKernelSocket(a.cfg.Node, unix.NETLINK_NETFILTER, guardBuffer)
	if err != nil {
		return err
	}
	snap := uint32(answerSnapLen)
	if a.cfg.Hear {
		snap = hearSnapLen
	}
	sock.buf = make([]byte, snap+guardHeaders)
	a.guards = &guardAnswers{sock: sock, waiting: map[streamKey][][]byte{}}
	for _, ifc := range a.cfg.Interfaces {
		group := AnswerGroup(ifc)
		_, err := sock.conn.Execute(netlink.Message{
			Header: netlink.Header{Type: nflogConfig, Flags: netlink.Request | netlink.Acknowledge},
			Data:   guardBind(group, snap),
		})
		if err != nil {
			return fmt.Errorf("take NFLOG group %d in %s, of interface %s: %w; another program reads it", group, kernelPlace(a.cfg.Node), ifc.Host, err)
		}
	}
	return nil
}

// guardBind takes a group, whole packets, each at once.
func guardBind(group uint16, snap uint32) []byte {
	b := []byte{unix.AF_UNSPEC, 0, byte(group >> 8), byte(group)}
	put := func(kind uint16, v ...byte) {
		b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(v)))
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = append(b, v...)
		b = append(b, make([]byte, (4-len(v)%4)%4)...)
	}
	be := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	put(nflogConfigCommand, 1)
	put(nflogConfigMode, append(be(snap), 2, 0)...)
	put(nflogConfigBatch, be(1)...)
	return b
}

// messages are the DNS messages that are whole with a packet that waits in the queue. seen is false
// where no guard knows of it.
func (g *guardAnswers) messages(p dnsPacket) (list [][]byte, seen bool) {
	g.drain()
	if !p.tcp {
		for i, d := range g.dgrams {
			if d.server == p.server && d.port == p.port && d.is(p.payload) {
				g.dgrams = append(g.dgrams[:i], g.dgrams[i+1:]...)
				g.bytes -= len(d.payload)
				return [][]byte{d.payload}, true
			}
		}
		return nil, false
	}
	k := streamKey{p.server, p.port}
	list, seen = g.waiting[k]
	delete(g.waiting, k)
	return list, seen || g.streams.open[k] != nil || len(p.payload) == 0
}

// is says whether a datagram that waits in the queue is this one. Of one in fragments the guard saw the
// first, and that is what is believed; IPv4 has put it together by then.
func (d *guardDatagram) is(payload []byte) bool {
	return bytes.Equal(d.payload, payload) || d.partial && bytes.HasPrefix(payload, d.payload)
}

// all are the messages that are whole, whoever they are for.
func (g *guardAnswers) all() (list [][]byte) {
	for _, d := range g.dgrams {
		list = append(list, d.payload)
	}
	for k, messages := range g.waiting {
		list = append(list, messages...)
		delete(g.waiting, k)
	}
	g.dgrams, g.bytes = nil, 0
	return list
}

// drain reads all that the guards have logged until now.
func (g *guardAnswers) drain() {
	for {
		var n int
		var err error
		if e := g.sock.raw.Control(func(fd uintptr) {
			n, _, err = unix.Recvfrom(int(fd), g.sock.buf, unix.MSG_DONTWAIT)
		}); e != nil {
			return
		}
		switch {
		case err == nil:
			g.batch(g.sock.buf[:n])
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOBUFS): // lost ones are never seen
		default:
			return
		}
	}
}

func (g *guardAnswers) batch(b []byte) {
	for m := range kernelMessages(b) {
		if m.kind != nflogPacket {
			continue
		}
		l, ok := nflogParse(m.body)
		if !ok || string(l.prefix) != PrefixAnswer {
			continue
		}
		if p, ok := readDNSPacket(l.payload); ok {
			g.keep(p)
		}
	}
}

func (g *guardAnswers) keep(p dnsPacket) {
	if p.tcp {
		k := streamKey{p.server, p.port}
		if list := g.streams.take(p); len(list) > 0 && (len(g.waiting) < streamsKept || g.waiting[k] != nil) {
			g.waiting[k] = append(g.waiting[k], list...)
			g.waiting[k] = g.waiting[k][max(0, len(g.waiting[k])-guardStreamsKept):]
		}
		return
	}
	g.dgrams = append(g.dgrams, guardDatagram{p.server, p.port, bytes.Clone(p.payload), p.partial})
	g.bytes += len(p.payload)
	for len(g.dgrams) > guardAnswersKept || g.bytes > guardAnswersBytes {
		g.bytes -= len(g.dgrams[0].payload)
		g.dgrams[0].payload = nil
		g.dgrams = g.dgrams[1:]
	}
}

func (g *guardAnswers) close() error { return g.sock.Close() }
