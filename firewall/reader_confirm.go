package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// Root in a container may write a rule of its own that logs to our group with our prefixes, and read
// ours, so that no secret in them would help. What it cannot do is write to our sets: the table is
// owned. Our rules put (peer, protocol, port) in a set in the same breath in which they log it, and
// there it stays for a minute. So a message is confirmed by its element: one that has none was not
// written by our rules. One that has teaches what a packet did that passed our rules, and no more.

// logKey is the element under which our rules remember a packet that they logged. The zero value is
// for what needs no confirmation: it teaches nothing.
type logKey struct {
	peer     netip.Addr
	dir      policy.Direction // as the hook saw it, whoever opened the connection
	denied   bool             // in the denied set, else the seen one
	protocol uint8
	part     uint16 // see SeenSet
}

// key is where a packet with this origin must be remembered. What is not whole teaches nothing, and
// its key cannot be told for sure.
func (o decodeOrigin) key(d *decodePacket) logKey {
	if o.sensor == flow.AtGuard || !d.whole {
		return logKey{}
	}
	k := logKey{peer: d.dst, dir: o.direction, denied: o.verdict != policy.Allow, protocol: uint8(d.protocol), part: d.part}
	if o.direction == policy.Ingress {
		k.peer = d.src
	}
	return k
}

func (k logKey) set() string {
	family := 4
	if k.peer.Is6() {
		family = 6
	}
	if k.denied {
		return DeniedSet(k.dir, family)
	}
	return SeenSet(k.dir, family)
}

// confirmer asks a namespace's sets for elements. It is for one goroutine.
type confirmer struct {
	sock    *socket
	request attrs
}

// openConfirmer opens one in the namespace at path; close it.
func openConfirmer(path string) (*confirmer, error) {
	ns, err := OpenNamespace(path)
	if err != nil {
		return nil, err
	}
	sock, err := openSocket(ns, path)
	return &confirmer{sock: sock}, errors.Join(err, ns.Close())
}

func (c *confirmer) close() error {
	if c == nil {
		return nil
	}
	return c.sock.close()
}

// confirm marks those of the entries whose element is in its set. All are asked for with one send,
// whose answers are there when it returns.
//
// Errors: the answers were lost, or the kernel does not answer; then nothing is marked.
// Source: nf_tables_getsetelem in net/netfilter/nf_tables_api.c.
func (c *confirmer) confirm(entries []logEntry) error {
	c.request = c.request[:0]
	first := c.sock.seq + 1
	asked := 0
	for i := range entries {
		c.sock.seq++
		if entries[i].key.peer.IsValid() {
			c.ask(entries[i].key)
			asked++
		}
	}
	if asked == 0 {
		return nil
	}
	c.sock.drain()
	if err := c.sock.send(c.request); err != nil {
		return fmt.Errorf("%s: ask for seen peers: %w", c.sock.where, err)
	}
	answered := 0
	err := c.sock.receive(func(m message) bool {
		i := int(m.seq - first)
		if i < 0 || i >= len(entries) {
			return true
		}
		switch m.kind {
		case unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWSETELEM:
			entries[i].confirmed = true
			answered++
		case unix.NLMSG_ERROR: // no such element, or set
			answered++
		}
		return true
	})
	if err == nil && answered < asked {
		err = fmt.Errorf("%s: ask for seen peers: %w", c.sock.where, errAgain)
	}
	return err
}

// ask appends the request for one element.
func (c *confirmer) ask(k logKey) {
	at := len(c.request)
	c.request = appendHeader(c.request, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETSETELEM, unix.NLM_F_REQUEST, uint8(FamilyINet))
	c.request.name(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
	c.request.name(unix.NFTA_SET_ELEM_LIST_SET, k.set())
	c.request.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
		c.request.nest(unix.NFTA_LIST_ELEM, func() {
			c.request.nest(unix.NFTA_SET_ELEM_KEY, func() {
				var b [24]byte
				n := copy(b[:], k.peer.AsSlice())
				b[n] = k.protocol
				binary.BigEndian.PutUint16(b[n+4:], k.part)
				c.request.bytes(unix.NFTA_DATA_VALUE, b[:n+8])
			})
		})
	})
	binary.NativeEndian.PutUint32(c.request[at:], uint32(len(c.request)-at))
	binary.NativeEndian.PutUint32(c.request[at+8:], c.sock.seq)
}
