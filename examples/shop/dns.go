package shop

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	domain  = "svc.cluster.local."
	maxUDP  = 512 // bytes of a DNS message over UDP without EDNS, RFC 1035 4.2.1
	dnsPort = 53
	ttl     = 5 // seconds, as CoreDNS answers for the cluster's names
)

// zone is what kube-dns knows: absolute names and their addresses.
var zone = sync.OnceValue(func() map[string][2]netip.Addr {
	g, err := Load()
	if err != nil {
		panic(err) // the graph is part of the program
	}
	names := map[string][2]netip.Addr{}
	for _, o := range g.Objects() {
		names[o.Name+"."+o.Service.Namespace+"."+domain] = o.Addrs
	}
	for _, x := range g.External {
		if addr, err := netip.ParseAddr(x.Address); err == nil && x.DNS != "" {
			names[x.DNS+"."] = [2]netip.Addr{addr}
		}
	}
	return names
})

// answerDNS answers one message. What is no query is an error; an unknown name is NXDOMAIN.
func answerDNS(query []byte) ([]byte, error) {
	var p dnsmessage.Parser
	head, err := p.Start(query)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil || head.Response {
		return nil, fmt.Errorf("message %d: no question in it", head.ID)
	}
	addrs, known := zone()[strings.ToLower(q.Name.String())]
	answer := dnsmessage.Header{ID: head.ID, Response: true, Authoritative: true, RecursionDesired: head.RecursionDesired,
		RecursionAvailable: true}
	if !known {
		answer.RCode = dnsmessage.RCodeNameError
	}
	b := dnsmessage.NewBuilder(nil, answer)
	b.EnableCompression()
	rh := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: ttl}
	err = errors.Join(b.StartQuestions(), b.Question(q), b.StartAnswers())
	switch {
	case q.Type == dnsmessage.TypeA && addrs[0].IsValid():
		err = errors.Join(err, b.AResource(rh, dnsmessage.AResource{A: addrs[0].As4()}))
	case q.Type == dnsmessage.TypeAAAA && addrs[1].IsValid():
		err = errors.Join(err, b.AAAAResource(rh, dnsmessage.AAAAResource{AAAA: addrs[1].As16()}))
	}
	if err != nil {
		return nil, err
	}
	return b.Finish()
}

// serveDNS answers datagrams until c is closed.
func serveDNS(c net.PacketConn) error {
	buf := make([]byte, maxUDP)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		if answer, err := answerDNS(buf[:n]); err == nil {
			_, _ = c.WriteTo(answer, from) // a client that went is no fault of the server
		}
	}
}

// answerStream answers one message with the two bytes of length that DNS has over TCP.
func answerStream(r *bufio.Reader, w io.Writer) error {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	query := make([]byte, binary.BigEndian.Uint16(head[:]))
	if _, err := io.ReadFull(r, query); err != nil {
		return err
	}
	answer, err := answerDNS(query)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
	return err
}

// lookup asks kube-dns for both addresses of an absolute name, A and AAAA over one UDP socket, as
// C libraries do. Only one of them need exist.
func lookup(ctx context.Context, server netip.Addr, name string) ([2]netip.Addr, error) {
	var found [2]netip.Addr
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp", netip.AddrPortFrom(server, dnsPort).String())
	if err != nil {
		return found, err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return found, err
		}
	}
	absolute, err := dnsmessage.NewName(name)
	if err != nil {
		return found, fmt.Errorf("name %s: %w", name, err)
	}
	first := uint16(rand.Uint32()) &^ 1 // the ids of the two queries differ in their last bit
	for i, t := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
		m := dnsmessage.Message{Header: dnsmessage.Header{ID: first | uint16(i), RecursionDesired: true},
			Questions: []dnsmessage.Question{{Name: absolute, Type: t, Class: dnsmessage.ClassINET}}}
		query, err := m.Pack()
		if err != nil {
			return found, err
		}
		if _, err := c.Write(query); err != nil {
			return found, err
		}
	}
	buf := make([]byte, maxUDP)
	for range 2 {
		n, err := c.Read(buf)
		if err != nil {
			return found, fmt.Errorf("ask %s for %s: %w", server, name, err)
		}
		var m dnsmessage.Message
		if err := m.Unpack(buf[:n]); err != nil || m.ID&^1 != first {
			return found, fmt.Errorf("ask %s for %s: an answer to something else: %v", server, name, err)
		}
		for _, a := range m.Answers {
			switch body := a.Body.(type) {
			case *dnsmessage.AResource:
				found[0] = netip.AddrFrom4(body.A)
			case *dnsmessage.AAAAResource:
				found[1] = netip.AddrFrom16(body.AAAA)
			}
		}
	}
	if !found[0].IsValid() && !found[1].IsValid() {
		return found, fmt.Errorf("ask %s for %s: no such name", server, name)
	}
	return found, nil
}
