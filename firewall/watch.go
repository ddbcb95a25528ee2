package firewall

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// EventKind says what a Watch noticed.
type EventKind string

const (
	EventNftables EventKind = "nftables" // somebody else changed the namespace's ruleset
	EventLink     EventKind = "link"     // an interface came, went, or got another name or MAC
	EventAddress  EventKind = "address"  // an interface got an address
	EventBlind    EventKind = "blind"    // messages were lost: what changed is not known, sweep
)

// Event is something that happened in a workload's namespace and that we did not do. Text that the
// container chose (names of tables, interfaces, processes) has its unprintable characters replaced.
type Event struct {
	Time    time.Time
	Kind    EventKind
	What    string // a sentence without a full stop: "table ip evil was added"
	Table   string // for nftables: family and name of the first table concerned, "inet evil"
	Chain   string // for nftables: the first chain concerned
	Process string // for nftables: the name of the thread that did it, as it calls itself
	PID     int    // for nftables: of that thread, as the machine's first PID namespace numbers it
	Flushed bool   // for nftables: the tripwire went; a flush of the ruleset does that
}

const (
	// watchBuffer is the kernel's receive buffer of each of the two sockets, in bytes.
	watchBuffer = 1 << 20
	// Groups of the kernel's notifications.
	// Source: uapi/linux/netfilter/nfnetlink.h and uapi/linux/rtnetlink.h.
	watchGroupNftables = 7
	watchGroupLink     = unix.RTNLGRP_LINK
	watchGroupIPv4     = unix.RTNLGRP_IPV4_IFADDR
	watchGroupIPv6     = unix.RTNLGRP_IPV6_IFADDR
)

// WatchConfig says what to watch.
type WatchConfig struct {
	Namespace string     // path of the network namespace; empty: the process's own
	Own       *Namespace // whose changes are ours; to be closed after the Watch. nil: see own
	Adopted   bool       // a former Watch left its tripwire here: its absence is an event
}

// Watch notices what others change in one namespace. Our own tables are owned, so that nobody can
// change them, and a flush by somebody else skips them without a word. Therefore the Watch lays a
// tripwire, an empty table that anybody can delete and that a flush deletes, and lays it again after
// it told.
//
// It tells, it does not repair. While it is open the namespace lives on.
type Watch struct {
	cfg      WatchConfig
	nft      *kernelSocket
	route    *kernelSocket
	links    *watchLinks
	tripwire *tripwire
	missed   *Event // from before Run

	mu   sync.Mutex // one call of tell at a time
	tell func(Event)
}

// NewWatch begins to watch: whatever happens after it returned, Run tells. What is there already is
// taken as it is.
func NewWatch(cfg WatchConfig) (*Watch, error) {
	w := &Watch{cfg: cfg}
	if err := w.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("watch %s: %w", kernelPlace(cfg.Namespace), err), w.Close())
	}
	return w, nil
}

func (w *Watch) open() (err error) {
	if w.tripwire, err = openTripwire(w.cfg.Namespace); err != nil {
		return err
	}
	if w.nft, err = watchSocket(w.cfg.Namespace, unix.NETLINK_NETFILTER, watchGroupNftables); err != nil {
		return err
	}
	if err := w.nft.ignore(w.ownPorts()); err != nil {
		return fmt.Errorf("set filter: %w", err)
	}
	if w.route, err = watchSocket(w.cfg.Namespace, unix.NETLINK_ROUTE, watchGroupLink, watchGroupIPv4, watchGroupIPv6); err != nil {
		return err
	}
	w.links = newWatchLinks()
	if _, err = w.links.resync(w.cfg.Namespace); err != nil {
		return err
	}
	there, err := w.tripwire.there()
	if err != nil {
		return err
	}
	if w.cfg.Adopted && !there {
		w.missed = &Event{Time: time.Now(), Kind: EventNftables, Table: tripwireName, Flushed: true,
			What: "the ruleset was flushed, or " + tripwireName + " deleted, while nobody watched"}
	}
	return w.tripwire.lay()
}

func watchSocket(path string, protocol int, groups ...uint32) (*kernelSocket, error) {
	s, err := openKernelSocket(path, protocol, watchBuffer)
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		if err := s.conn.JoinGroup(g); err != nil {
			return nil, errors.Join(fmt.Errorf("hear of changes: %w", err), s.Close())
		}
	}
	return s, nil
}

// Run calls f for every event, one at a time, until the context ends or Close is called, and then
// returns nil. f must not block for long: events that find the buffer full are lost, which is an
// event too.
func (w *Watch) Run(ctx context.Context, f func(Event)) error {
	w.tell = f
	if w.missed != nil {
		f(*w.missed)
		w.missed = nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.routineNftables(ctx) })
	g.Go(func() error { return w.routineRoute(ctx) })
	return g.Wait()
}

func (w *Watch) emit(e Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tell(e)
}

// loop hands every read to f and calls lost for what was lost, until the context or the socket ends.
// due is when f wants to be called without data, zero for never.
func (w *Watch) loop(ctx context.Context, s *kernelSocket, f func([]byte) (due time.Time), lost func() error) error {
	s.resume()
	defer context.AfterFunc(ctx, s.interrupt)()
	for {
		b, err := s.receive()
		switch {
		case errors.Is(err, os.ErrClosed), ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			if err := lost(); err != nil {
				return err
			}
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			b = nil
		case err != nil:
			return fmt.Errorf("watch %s: %w", kernelPlace(w.cfg.Namespace), err)
		}
		_ = s.conn.SetReadDeadline(f(b))
		if ctx.Err() != nil {
			s.interrupt() // the line above may have taken it back
		}
	}
}

// blind is the event of a loss.
func (w *Watch) blind(of string) {
	w.emit(Event{Time: time.Now(), Kind: EventBlind,
		What: "changes of " + of + " came faster than they could be read; some are not known"})
}

// Remove takes the tripwire away, for a workload that is to be left as it was found.
func (w *Watch) Remove() error { return w.tripwire.remove() }

// Close ends Run. The tripwire stays, so that the next Watch sees what happened in between.
func (w *Watch) Close() error {
	var err error
	for _, s := range []*kernelSocket{w.nft, w.route} {
		if s != nil {
			err = errors.Join(err, s.Close())
		}
	}
	if w.tripwire != nil {
		err = errors.Join(err, w.tripwire.close())
	}
	return err
}

// watchText is text that somebody else chose, safe for logs and terminals, and short.
func watchText(b []byte) string {
	const longest = 64
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, cstring(b))
	if len(s) > longest {
		s = s[:longest] + "..."
	}
	return s
}
