package firewall

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/flow"
)

// What the kernel fixes. Source: uapi/linux/netfilter/nfnetlink_queue.h.
const (
	nfqPacket  = unix.NFNL_SUBSYS_QUEUE << 8
	nfqVerdict = unix.NFNL_SUBSYS_QUEUE<<8 | 1
	nfqConfig  = unix.NFNL_SUBSYS_QUEUE<<8 | 2

	nfqPacketHeader = 1  // __be32 id, __be16 ethertype, __u8 hook
	nfqVerdictHead  = 2  // __be32 verdict, __be32 id
	nfqPayload      = 10 // from the network header on

	nfqConfigCommand = 1 // __u8 1: bind, padding, __be16
	nfqConfigParams  = 2 // __be32 bytes to copy, __u8 mode (2: packet)
	nfqConfigLength  = 3 // __be32 packets that may wait
	nfqConfigMask    = 4 // __be32 of the flags that are set
	nfqConfigFlags   = 5 // __be32

	nfqFailOpen = 1 << 0 // what finds no room passes
	nfqGSO      = 1 << 2 // large packets come whole

	nfDrop, nfAccept = 0, 1
)

const (
	// answersWaiting bounds how many answers wait for us. A daemon that hangs delays that many, and the
	// rest passes unread.
	answersWaiting = 128
	// answersBuffer is the kernel's receive buffer.
	answersBuffer = 1 << 20
	// answerBytes is the largest message of the kernel: an IP packet and what it says of it.
	answerBytes = 1<<16 + 4096
)

// AnswersConfig says whose DNS answers to read.
type AnswersConfig struct {
	Namespace string // path of the network namespace
	Node      string // path of the node's; empty: the process's own
	// Interfaces of the workload. Where each has a guard, answers are believed as the guards saw them, so
	// that nothing in the namespace can forge one.
	Interfaces []Interface
	Closed     bool // drop an answer that could not be put in force; as Spec.AnswersClosed
	Hear       bool // only hear what the guards tell; nothing waits
}

// AnswersStats counts DNS answers. All figures only grow.
type AnswersStats struct {
	Packets    uint64 // that waited in the queue
	Messages   uint64 // DNS messages among them
	Malformed  uint64 // that could not be read, or only in part
	Unseen     uint64 // packets that no guard has seen: forged inside the namespace, or the log was full
	Failed     uint64 // that could not be put in force
	Overruns   uint64 // how often the kernel had no room for us
	Unanswered uint64 // verdicts that the kernel did not take
}

// Answers reads the DNS answers that wait in a workload's namespace. One socket may hold the queue in a
// namespace. While it is open the namespace lives on.
type Answers struct {
	cfg     AnswersConfig
	sock    *kernelSocket
	guards  *guardAnswers // nil: the namespace's word is taken
	streams dnsStreams
	verdict []byte

	packets, messages, malformed, unseen, failed, overruns, unanswered atomic.Uint64
}

// OpenAnswers takes the queue of a namespace. From then on answers wait for Run.
//
// Errors: EPERM when somebody else reads the queue.
// Source: net/netfilter/nfnetlink_queue.c.
func OpenAnswers(cfg AnswersConfig) (*Answers, error) {
	a := &Answers{cfg: cfg}
	err := a.openGuards()
	if err == nil && !cfg.Hear {
		err = a.openQueue()
	}
	if err == nil && cfg.Hear && a.guards == nil {
		err = fmt.Errorf("an interface in %s has no guard that tells of answers", cfg.Namespace)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("DNS answers: %w", err), a.Close())
	}
	return a, nil
}

func (a *Answers) openQueue() (err error) {
	if a.sock, err = openKernelSocket(a.cfg.Namespace, unix.NETLINK_NETFILTER, answersBuffer); err != nil {
		return err
	}
	a.sock.buf = make([]byte, answerBytes)
	_, err = a.sock.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: nfqConfig, Flags: netlink.Request | netlink.Acknowledge},
		Data:   nfqBind(),
	})
	if err != nil {
		return fmt.Errorf("take queue %d in %s: %w; another program reads it, or CAP_NET_ADMIN is missing", AnswerQueue, a.cfg.Namespace, err)
	}
	a.verdict = appendHeader(nil, nfqVerdict, unix.NLM_F_REQUEST, unix.AF_UNSPEC)
	binary.BigEndian.PutUint16(a.verdict[len(a.verdict)-2:], AnswerQueue)
	a.verdict = binary.NativeEndian.AppendUint16(a.verdict, unix.SizeofNlAttr+8)
	a.verdict = binary.NativeEndian.AppendUint16(a.verdict, nfqVerdictHead)
	a.verdict = append(a.verdict, make([]byte, 8)...)
	binary.NativeEndian.PutUint32(a.verdict, uint32(len(a.verdict)))
	return nil
}

// nfqBind is the body of the one message that takes the queue and configures it.
func nfqBind() []byte {
	b := []byte{unix.AF_UNSPEC, 0, AnswerQueue >> 8, AnswerQueue & 0xff}
	put := func(kind uint16, v ...byte) {
		b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(v)))
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = append(b, v...)
		b = append(b, make([]byte, (4-len(v)%4)%4)...)
	}
	be := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	put(nfqConfigCommand, 1, 0, 0, 0)
	put(nfqConfigParams, append(be(answerSnapLen), 2)...)
	put(nfqConfigLength, be(answersWaiting)...)
	put(nfqConfigMask, be(nfqFailOpen|nfqGSO)...)
	put(nfqConfigFlags, be(nfqFailOpen|nfqGSO)...)
	return b
}

// Run hands each answer that waits to learn, and lets it go when learn returns: what is then in force,
// the first packet after the answer meets. It ends with the context or Close, and then returns nil.
func (a *Answers) Run(ctx context.Context, learn func(flow.Answer) error) error {
	sock, take := a.sock, a.batch
	if a.cfg.Hear {
		sock, take = a.guards.sock, a.heard
	}
	sock.resume()
	defer context.AfterFunc(ctx, sock.interrupt)()
	for {
		b, err := sock.receive()
		switch {
		case err == nil:
			take(b, learn)
		case errors.Is(err, unix.ENOBUFS):
			a.overruns.Add(1)
		case errors.Is(err, os.ErrClosed), ctx.Err() != nil:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			sock.resume()
		default:
			return fmt.Errorf("DNS answers: read: %w", err)
		}
	}
}

func (a *Answers) batch(b []byte, learn func(flow.Answer) error) {
	for m := range kernelMessages(b) {
		if m.kind != nfqPacket || len(m.body) < nfgenmsgSize {
			continue
		}
		var id uint32
		var packet []byte
		for kind, v := range decodeAttributes(m.body[nfgenmsgSize:]) {
			switch {
			case kind == nfqPacketHeader && len(v) >= 4:
				id = binary.BigEndian.Uint32(v)
			case kind == nfqPayload:
				packet = v
			}
		}
		a.packets.Add(1)
		verdict := uint32(nfAccept)
		if err := a.read(packet, learn); err != nil {
			a.failed.Add(1)
			if a.cfg.Closed {
				verdict = nfDrop
			}
		}
		a.answer(id, verdict)
	}
}

// read learns from one packet that waits.
func (a *Answers) read(packet []byte, learn func(flow.Answer) error) (err error) {
	p, ok := readDNSPacket(packet)
	if !ok {
		a.malformed.Add(1)
		return nil
	}
	return a.learn(a.messagesOf(p), learn)
}

func (a *Answers) learn(messages [][]byte, learn func(flow.Answer) error) (err error) {
	for _, message := range messages {
		a.messages.Add(1)
		answer, bad := flow.ReadAnswer(message)
		if bad != nil {
			a.malformed.Add(1)
		}
		if len(answer.Addrs) > 0 {
			err = errors.Join(err, learn(answer))
		}
	}
	return err
}

// heard learns from what guards tell, when nothing waits for it.
func (a *Answers) heard(b []byte, learn func(flow.Answer) error) {
	a.guards.batch(b)
	if err := a.learn(a.guards.all(), learn); err != nil {
		a.failed.Add(1)
	}
}

// messagesOf are the DNS messages that are whole with this packet.
func (a *Answers) messagesOf(p dnsPacket) [][]byte {
	if a.guards == nil {
		if p.tcp {
			return a.streams.take(p)
		}
		return [][]byte{p.payload}
	}
	messages, seen := a.guards.messages(p)
	if !seen {
		a.unseen.Add(1)
	}
	return messages
}

// answer gives the kernel a verdict on a packet.
func (a *Answers) answer(id, verdict uint32) {
	at := len(a.verdict) - 8
	binary.BigEndian.PutUint32(a.verdict[at:], verdict)
	binary.BigEndian.PutUint32(a.verdict[at+4:], id)
	var err error
	if e := a.sock.raw.Control(func(fd uintptr) { _, err = unix.Write(int(fd), a.verdict) }); e != nil || err != nil {
		a.unanswered.Add(1)
	}
}

// Stats may be called from any goroutine, also after Close.
func (a *Answers) Stats() AnswersStats {
	return AnswersStats{
		Packets: a.packets.Load(), Messages: a.messages.Load(), Malformed: a.malformed.Load(), Unseen: a.unseen.Load(),
		Failed: a.failed.Load(), Overruns: a.overruns.Load(), Unanswered: a.unanswered.Load(),
	}
}

// Close gives the queue back and ends Run. What waits is dropped by the kernel, and asked for again by
// whoever asked.
func (a *Answers) Close() error {
	var err error
	if a.sock != nil {
		err = a.sock.Close()
	}
	if a.guards != nil {
		err = errors.Join(err, a.guards.close())
	}
	return err
}

// Guarded says whether answers are believed as the guards saw them.
func (a *Answers) Guarded() bool { return a.guards != nil }
