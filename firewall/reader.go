package firewall

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/flow"
)

// What the kernel fixes. Source: uapi/linux/netfilter/nfnetlink_log.h.
const (
	nflogPacket        = unix.NFNL_SUBSYS_ULOG << 8
	nflogConfig        = unix.NFNL_SUBSYS_ULOG<<8 | 1
	nflogConfigCommand = 1 // __u8, 1: bind
	nflogConfigMode    = 2 // __be32 bytes to copy, __u8 mode (2: packet), padding
	nflogConfigBuffer  = 3 // __be32 bytes of a batch
	nflogConfigTimeout = 4 // __be32 hundredths of a second
	nflogConfigBatch   = 5 // __be32 messages of a batch
	nflogConfigFlags   = 6 // __be16, 1: sequence numbers
)

// What we chose.
const (
	// logBatch is what the kernel gathers before it wakes us, in bytes: some 60 messages.
	logBatch = 16 << 10
	// logBatchMessages ends a batch by number, so that no message ever waits for room.
	logBatchMessages = 48
	// logWait is how long a message may wait for company, in hundredths of a second. With it an
	// operator sees a connection after 50 ms at most, and a flood wakes us 20 times a second or
	// once a batch.
	logWait = 5
	// readerBuffer is the kernel's receive buffer: what may come while we are busy, some 5,000
	// messages. It bounds what a flood costs; beyond it messages are lost and counted.
	readerBuffer = 1 << 20
)

// ReaderConfig says which flow log to read.
type ReaderConfig struct {
	Namespace string // path of the network namespace; empty: the process's own, where guards log
	Workload  string // goes into every record; empty for guards, whose ifindex tells the workload
	Group     uint16 // NFLOG group; 0: LogGroup
	Buffer    int    // receive buffer in bytes; 0: 1 MiB
	// Confirm holds every record against the sets of the namespace's own table: what our rules did not
	// remember they did not log. For a namespace with somebody else in it.
	Confirm bool
}

// ReaderStats counts what came out of a flow log. All figures only grow.
type ReaderStats struct {
	Records   uint64 // handed on
	Lost      uint64 // log messages that the kernel could not deliver to us; exact, known with the next one
	Overruns  uint64 // how often the kernel said that the receive buffer was full
	Malformed uint64 // packets that could not be read, or only in part
	Foreign   uint64 // messages to our group by a rule that is not ours
	Forged    uint64 // messages that look like ours, of packets that our rules never saw; not handed on
	Doubtful  uint64 // messages that could not be confirmed, since the kernel did not answer; not handed on
	Held      uint64 // how often this log had used up its share of Readers and was left to wait
}

// Reader reads the flow log of one namespace. One socket may hold a group in a namespace: a second
// Reader, or another program, gets EPERM.
//
// While it is open the namespace lives on.
type Reader struct {
	cfg     ReaderConfig
	sock    *kernelSocket
	confirm *confirmer // nil: not needed
	next    uint32     // sequence number of the message to come

	records, lost, overruns, malformed, foreign, forged, doubtful, held atomic.Uint64
}

// NewReader takes the log group of a namespace. From then on the kernel keeps records for Run.
//
// Errors: EPERM when somebody else reads this group in this namespace.
// Source: net/netfilter/nfnetlink_log.c.
func NewReader(cfg ReaderConfig) (*Reader, error) {
	if cfg.Group == 0 {
		cfg.Group = LogGroup
	}
	if cfg.Buffer == 0 {
		cfg.Buffer = readerBuffer
	}
	sock, err := openKernelSocket(cfg.Namespace, unix.NETLINK_NETFILTER, cfg.Buffer)
	if err != nil {
		return nil, fmt.Errorf("flow log: %w", err)
	}
	_, err = sock.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: nflogConfig, Flags: netlink.Request | netlink.Acknowledge},
		Data:   nflogBind(cfg.Group),
	})
	if err != nil {
		_ = sock.Close()
		hint := ""
		if errors.Is(err, unix.EPERM) { // the kernel's answer to both
			hint = "; another program reads it, or CAP_NET_ADMIN is missing"
		}
		return nil, fmt.Errorf("flow log: take NFLOG group %d in %s: %w%s", cfg.Group, kernelPlace(cfg.Namespace), err, hint)
	}
	r := &Reader{cfg: cfg, sock: sock}
	if cfg.Confirm {
		if r.confirm, err = openConfirmer(cfg.Namespace); err != nil {
			return nil, errors.Join(fmt.Errorf("flow log: %w", err), r.Close())
		}
	}
	return r, nil
}

// nflogBind is the body of the one message that takes a group and configures it.
func nflogBind(group uint16) []byte {
	b := []byte{unix.AF_UNSPEC, 0, byte(group >> 8), byte(group)}
	put := func(kind uint16, v ...byte) {
		b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(v)))
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = append(b, v...)
		b = append(b, make([]byte, (4-len(v)%4)%4)...)
	}
	be := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	put(nflogConfigCommand, 1)
	put(nflogConfigMode, append(be(LogSnapLen), 2, 0)...)
	put(nflogConfigBuffer, be(logBatch)...)
	put(nflogConfigTimeout, be(logWait)...)
	put(nflogConfigBatch, be(logBatchMessages)...)
	put(nflogConfigFlags, 0, 1)
	return b
}

// Run hands every record to f until the context ends or Close is called, and then returns nil. Any
// other error is the socket's. f is called by one goroutine and must not block for long: while it
// does, the kernel's buffer fills.
func (r *Reader) Run(ctx context.Context, f func(flow.Record)) error {
	return r.RunGuards(ctx, func(rec flow.Record, _ int) { f(rec) })
}

// RunGuards is Run for a log that guards write to: ifindex is the host's end of the workload's veth,
// zero for what was logged on the way out.
func (r *Reader) RunGuards(ctx context.Context, f func(rec flow.Record, ifindex int)) error {
	r.sock.resume()
	defer context.AfterFunc(ctx, r.sock.interrupt)()
	desk := newReaderDesk()
	for {
		b, err := r.sock.receive()
		switch {
		case err == nil:
			r.batch(desk, b, time.Now(), f)
		case errors.Is(err, unix.ENOBUFS):
			r.overruns.Add(1) // how many went is told by the next sequence number
		case errors.Is(err, os.ErrClosed), ctx.Err() != nil:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			r.sock.resume() // the context of an earlier Run ended late
		default:
			return fmt.Errorf("flow log: read: %w", err)
		}
	}
}

// unbind has the kernel hand over what it gathered and then log nothing more to us.
func (r *Reader) unbind() {
	const unbind = 2 // NFULNL_CFG_CMD_UNBIND
	b := []byte{unix.AF_UNSPEC, 0, byte(r.cfg.Group >> 8), byte(r.cfg.Group)}
	b = binary.NativeEndian.AppendUint16(b, unix.SizeofNlAttr+1)
	b = binary.NativeEndian.AppendUint16(b, nflogConfigCommand)
	_, _ = r.sock.conn.Send(netlink.Message{ // where it fails the rest is gone, as by closing
		Header: netlink.Header{Type: nflogConfig, Flags: netlink.Request},
		Data:   append(b, unbind, 0, 0, 0),
	})
}

// Stats may be called from any goroutine, also after Close.
func (r *Reader) Stats() ReaderStats {
	return ReaderStats{
		Records: r.records.Load(), Lost: r.lost.Load(), Overruns: r.overruns.Load(),
		Malformed: r.malformed.Load(), Foreign: r.foreign.Load(), Forged: r.forged.Load(),
		Doubtful: r.doubtful.Load(), Held: r.held.Load(),
	}
}

// Close gives the group back and ends Run. Records that wait in the kernel are gone.
func (r *Reader) Close() error { return errors.Join(r.sock.Close(), r.confirm.close()) }
