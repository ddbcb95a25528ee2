package lab

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Where the kernel has no SCTP sockets, the first exchange of an association (RFC 9260, 5.1) goes
// through raw ones: INIT there, INIT ACK back. It is what a firewall judges an association by.

const (
	sctpHeader  = 12 // ports, verification tag, checksum
	sctpInit    = 1
	sctpInitAck = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sctpPacket is one packet with an INIT or INIT ACK chunk.
func sctpPacket(from, to uint16, verify uint32, chunk byte, tag uint32) []byte {
	b := make([]byte, sctpHeader+20)
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint32(b[4:], verify)
	b[sctpHeader] = chunk
	binary.BigEndian.PutUint16(b[sctpHeader+2:], 20)     // length of the chunk
	binary.BigEndian.PutUint32(b[sctpHeader+4:], tag)    // initiate tag
	binary.BigEndian.PutUint32(b[sctpHeader+8:], 65535)  // window
	binary.BigEndian.PutUint16(b[sctpHeader+12:], 1)     // outbound streams
	binary.BigEndian.PutUint16(b[sctpHeader+14:], 1)     // inbound streams
	binary.BigEndian.PutUint32(b[sctpHeader+16:], tag+1) // initial TSN
	// The checksum is little-endian on the wire (RFC 9260, appendix A).
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	return b
}

// sctpChunk reads a packet that holds one chunk of that type; v4 says that an IP header is in front, as
// raw(7) has it.
func sctpChunk(b []byte, v4 bool, chunk byte) (from, to uint16, verify, tag uint32, ok bool) {
	if v4 && len(b) > 0 {
		b = b[min(int(b[0]&15)*4, len(b)):]
	}
	if len(b) < sctpHeader+20 || b[sctpHeader] != chunk {
		return 0, 0, 0, 0, false
	}
	return binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[sctpHeader+4:]), true
}

// association sends an INIT through a raw socket and waits for its answer.
func (s *shot) association(conn net.Conn, deadline time.Time) (string, error) {
	mine, tag := uint16(32768+rand.IntN(28000)), rand.Uint32()|1
	init := sctpPacket(mine, s.server.Port(), 0, sctpInit, tag)
	return exchange(conn, init, deadline, func(got []byte) (string, bool) {
		from, to, verify, _, ok := sctpChunk(got, s.server.Addr().Is4(), sctpInitAck)
		return s.server.Addr().String(), ok && from == s.server.Port() && to == mine && verify == tag
	})
}

// sctpEcho answers INITs to one port of a namespace, in both families.
type sctpEcho struct{ conns []*net.IPConn }

// openSCTP opens it in the calling thread's namespace.
func openSCTP() (*sctpEcho, error) {
	e := &sctpEcho{}
	for _, network := range []string{"ip4:132", "ip6:132"} {
		conn, err := net.ListenIP(network, &net.IPAddr{})
		if err != nil {
			return nil, errors.Join(err, e.close())
		}
		e.conns = append(e.conns, conn)
		if err := tellDestinationIP(conn, network == "ip4:132"); err != nil {
			return nil, errors.Join(err, e.close())
		}
	}
	return e, nil
}

func (e *sctpEcho) close() error {
	var errs []error
	for _, c := range e.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// tellDestinationIP makes the kernel say to which of our addresses each packet came.
func tellDestinationIP(conn *net.IPConn, v4 bool) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	level, option := unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	if v4 {
		level, option = unix.IPPROTO_IP, unix.IP_PKTINFO
	}
	var set error
	err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), level, option, 1) })
	return errors.Join(err, set)
}

// answer ends when the socket is closed.
func (e *sctpEcho) answer(conn *net.IPConn, port uint16) {
	buf, oob := make([]byte, 2048), make([]byte, 128)
	for {
		n, m, _, peer, err := conn.ReadMsgIP(buf, oob)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil { // an ICMP error of an earlier answer
			continue
		}
		addr, _ := netip.AddrFromSlice(peer.IP)
		from, to, _, tag, ok := sctpChunk(buf[:n], addr.Unmap().Is4(), sctpInit)
		if !ok || to != port {
			continue
		}
		ack := sctpPacket(port, from, tag, sctpInitAck, rand.Uint32()|1)
		// From the address that was called. A full queue loses the answer, as on any network.
		_, _, _ = conn.WriteMsgIP(ack, answerFrom(oob[:m]), peer)
	}
}

// answerFrom turns the control message of what came into that of the answer: ip(7) wants the address
// that was called as the sender's.
func answerFrom(oob []byte) []byte {
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range msgs {
		switch {
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16:
			info := &unix.Inet6Pktinfo{Addr: [16]byte(m.Data[:16])}
			return unix.PktInfo6(info)
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 12:
			info := &unix.Inet4Pktinfo{Spec_dst: [4]byte(m.Data[8:12])} // ipi_addr: the packet's own
			return unix.PktInfo4(info)
		}
	}
	return nil
}
