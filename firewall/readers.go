package firewall

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/flow"
)

const (
	// readersRate is how many messages a second of one log are read for long: what one workload may
	// cost. The sets that fold repeats let an honest ruleset write no more than about that
	// (2 × SeenSize a minute and family); root in the container may write more, by rules of its own.
	readersRate = 5000
	// readersBurst is how many come through at once: a start, a scan that is to be recognized.
	readersBurst = 25000
	// readersHold is how long a log waits that had its share. What comes meanwhile fills the kernel's
	// buffer, then it is lost and counted.
	readersHold = 100 * time.Millisecond
	// readersTurn is how many logs are looked at with one question to the kernel. Each has one read of
	// at most logBatch in its turn, and who was read comes last in the next round.
	readersTurn = 64
	// readersLast bounds the reads of what waits in a log that is let go.
	readersLast = 128
)

// Readers reads the flow logs of many namespaces with one goroutine, in turns. A workload costs no
// goroutine, thread or buffer of ours, only its socket. A container that floods gets its share and no
// more: the others' messages wait for one read of its log at most.
type Readers struct {
	poll *os.File // an epoll descriptor, which the runtime polls in its turn: waiting takes no thread
	raw  syscall.RawConn

	mu      sync.Mutex
	members map[int32]*member // by the number under which epoll tells of them
	last    int32
	waiting map[*member]struct{} // had their share
	closed  bool
}

// member is a log with who hears of it.
type member struct {
	mu     sync.Mutex // held while it is read
	reader *Reader
	f      func(flow.Record)
	ended  func(error)
	number int32
	left   bool

	share float64 // messages that may be read now; below zero it waits
	since time.Time
}

// NewReaders makes an empty one. Run reads.
func NewReaders() (*Readers, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("flow logs: epoll: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that os.NewFile gives it to the runtime's poller
		return nil, errors.Join(fmt.Errorf("flow logs: epoll: %w", err), unix.Close(fd))
	}
	p := &Readers{poll: os.NewFile(uintptr(fd), "epoll"), members: map[int32]*member{}, waiting: map[*member]struct{}{}}
	if p.raw, err = p.poll.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("flow logs: epoll: %w", err), p.poll.Close())
	}
	return p, nil
}

// Add has f called for every record of r from now on, by Run's goroutine, and ended once if its socket
// fails. r must not be read by its own Run. f must not block for long: while it does, all logs wait.
func (p *Readers) Add(r *Reader, f func(flow.Record), ended func(error)) error {
	m := &member{reader: r, f: f, ended: ended, share: readersBurst, since: time.Now()}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return fmt.Errorf("flow logs: %w", os.ErrClosed)
	}
	p.last++
	m.number = p.last
	p.members[m.number] = m
	if err := p.watch(m, unix.EPOLL_CTL_ADD); err != nil {
		delete(p.members, m.number)
		return fmt.Errorf("flow logs: %w", err)
	}
	return nil
}

// Remove takes a log out, having read what waits in it. When it returns, f is not called any more.
// The reader is the caller's to close.
func (p *Readers) Remove(r *Reader) {
	m := p.forget(r)
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left = true
	r.unbind() // the kernel hands over what it gathers
	desk := newReaderDesk()
	desk.buf = make([]byte, kernelBuffer)
	for range readersLast {
		if n, err := m.read(desk); n == 0 && err != nil {
			return
		}
	}
}

func (p *Readers) forget(r *Reader) *member {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.members {
		if m.reader == r {
			delete(p.members, m.number)
			if _, waits := p.waiting[m]; !waits && !p.closed {
				_ = p.watch(m, unix.EPOLL_CTL_DEL)
			}
			delete(p.waiting, m)
			return m
		}
	}
	return nil
}

// watch changes what epoll knows of a member. It tells of one for as long as there is something to
// read; and of an error in any case, so that a log that waits is taken out.
func (p *Readers) watch(m *member, op int) error {
	var err error
	e := p.raw.Control(func(epoll uintptr) {
		err = errors.Join(err, m.reader.sock.raw.Control(func(fd uintptr) {
			err = unix.EpollCtl(int(epoll), op, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: m.number})
		}))
	})
	return errors.Join(err, e)
}

// Run reads until the context ends or Close is called, and then returns nil.
func (p *Readers) Run(ctx context.Context) error {
	_ = p.poll.SetReadDeadline(time.Time{})
	defer context.AfterFunc(ctx, func() { _ = p.poll.SetReadDeadline(time.Unix(1, 0)) })()
	desk := newReaderDesk()
	desk.buf = make([]byte, kernelBuffer)
	events := make([]unix.EpollEvent, readersTurn)
	for ctx.Err() == nil {
		n, err := p.wait(ctx, events)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
		case errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("flow logs: epoll: %w", err)
		}
		p.resume(time.Now())
		for _, e := range events[:n] {
			p.turn(desk, e.Fd)
		}
	}
	return nil
}

// wait waits until a log has something, or one that waits may be read again.
func (p *Readers) wait(ctx context.Context, events []unix.EpollEvent) (n int, err error) {
	p.mu.Lock()
	deadline := time.Time{}
	if len(p.waiting) > 0 {
		deadline = time.Now().Add(readersHold)
	}
	p.mu.Unlock()
	_ = p.poll.SetReadDeadline(deadline)
	if ctx.Err() != nil {
		return 0, nil // the line above may have taken its signal back
	}
	e := p.raw.Read(func(epoll uintptr) bool {
		n, err = unix.EpollWait(int(epoll), events, 0)
		if err == unix.EINTR {
			n, err = 0, nil
			return true
		}
		return n != 0
	})
	return max(n, 0), errors.Join(err, e)
}

// turn gives one member its turn.
func (p *Readers) turn(desk *readerDesk, number int32) {
	p.mu.Lock()
	m := p.members[number]
	p.mu.Unlock()
	if m == nil {
		return // it left since
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left {
		return
	}
	n, err := m.read(desk)
	if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOBUFS) {
		p.forget(m.reader)
		m.left = true
		m.ended(fmt.Errorf("flow log of %s: read: %w", kernelPlace(m.reader.cfg.Namespace), err))
		return
	}
	now := time.Now()
	m.share = min(m.share+now.Sub(m.since).Seconds()*readersRate, readersBurst) - float64(n)
	m.since = now
	if m.share <= 0 {
		p.hold(m)
	}
}

// read hands on what one read gives.
func (m *member) read(desk *readerDesk) (messages int, err error) {
	b, err := m.reader.sock.poll(desk.buf)
	switch {
	case err == nil:
		return m.reader.batch(desk, b, time.Now(), func(r flow.Record, _ int) { m.f(r) }), nil
	case errors.Is(err, unix.ENOBUFS):
		m.reader.overruns.Add(1) // how many went is told by the next sequence number
	}
	return 0, err
}

// hold lets a member wait that had its share.
func (p *Readers) hold(m *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.members[m.number] == nil || p.closed {
		return
	}
	if err := p.watch(m, unix.EPOLL_CTL_DEL); err == nil {
		p.waiting[m] = struct{}{}
		m.reader.held.Add(1)
	}
}

// resume lets those read on that have a share again.
func (p *Readers) resume(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for m := range p.waiting {
		if now.Sub(m.since) < readersHold {
			continue
		}
		if err := p.watch(m, unix.EPOLL_CTL_ADD); err == nil {
			delete(p.waiting, m)
		}
	}
}

// Close ends Run. It closes no reader.
func (p *Readers) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	return p.poll.Close()
}
