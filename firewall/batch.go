package firewall

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// batch is one transaction: messages that the kernel carries out together, or none of them.
type batch struct {
	buf    attrs
	labels []string // of each message, for errors
	compat bool     // write rules in the form for older kernels
}

func newBatch() *batch {
	b := &batch{}
	b.message(unix.NFNL_MSG_BATCH_BEGIN, 0, 0, "begin", nil)
	return b
}

// add appends a message of the nf_tables subsystem.
func (b *batch) add(kind int, flags uint16, family Family, label string, fill func(*attrs)) {
	b.message(unix.NFNL_SUBSYS_NFTABLES<<8|uint16(kind), flags, family, label, fill)
}

func (b *batch) message(kind, flags uint16, family Family, label string, fill func(*attrs)) {
	at := len(b.buf)
	b.buf = appendHeader(b.buf, kind, flags|unix.NLM_F_REQUEST, uint8(family))
	if fill != nil {
		fill(&b.buf)
	}
	binary.NativeEndian.PutUint32(b.buf[at:], uint32(len(b.buf)-at))
	b.labels = append(b.labels, label)
}

// appendHeader writes struct nlmsghdr and struct nfgenmsg; length and sequence are filled in later.
func appendHeader(b []byte, kind, flags uint16, family uint8) []byte {
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint32(b, 0)
	resource := uint16(0)
	if kind == unix.NFNL_MSG_BATCH_BEGIN || kind == unix.NFNL_MSG_BATCH_END {
		resource = unix.NFNL_SUBSYS_NFTABLES
	}
	b = append(b, family, 0)
	return binary.BigEndian.AppendUint16(b, resource)
}

const (
	headerSize = unix.SizeofNlMsghdr
	genSize    = nfgenmsgSize
)

// finish ends the batch, numbers its messages, and asks for an answer to the last one that counts,
// whose place it returns.
func (b *batch) finish(seq uint32) uint32 {
	last := uint32(len(b.labels) - 1)
	b.message(unix.NFNL_MSG_BATCH_END, 0, 0, "end", nil)
	for i, at := uint32(0), 0; at < len(b.buf); i++ {
		binary.NativeEndian.PutUint32(b.buf[at+8:], seq+i)
		if i == last {
			flags := binary.NativeEndian.Uint16(b.buf[at+6:])
			binary.NativeEndian.PutUint16(b.buf[at+6:], flags|unix.NLM_F_ACK)
		}
		at += int(binary.NativeEndian.Uint32(b.buf[at:]))
	}
	return last
}
