package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// EventKind says what a Watch noticed.
type EventKind string

const (
	EventNftables EventKind = "nftables" // somebody else changed the namespace's ruleset
	EventLink     EventKind = "link"     // an interface came, went, or got another name, MAC, master or XDP program
	EventAddress  EventKind = "address"  // an interface got an address
	EventRoute    EventKind = "route"    // a route or a rule of routing came
	EventTraffic  EventKind = "traffic"  // a qdisc or a filter of traffic control came
	EventSysctl   EventKind = "sysctl"   // a sysctl of the network changed
	EventBlind    EventKind = "blind"    // messages were lost: what changed is not known, sweep
)

// Event is something that happened in a workload's namespace and that we did not do. Text that the
// container chose (names of tables, interfaces, processes) has its unprintable characters replaced.
type Event struct {
	Time    time.Time
	Kind    EventKind
	What    string     // a sentence without a full stop: "table ip evil was added"
	Table   string     // for nftables: family and name of the first table concerned, "inet evil"
	Chain   string     // for nftables: the first chain concerned
	Process string     // for nftables: the name of the thread that did it, as it calls itself
	PID     int        // for nftables: of that thread, as the machine's first PID namespace numbers it
	Flushed bool       // for nftables: the tripwire went; a flush of the ruleset does that
	Index   int        // for links and addresses: the interface's
	Came    bool       // for links: it is new in the namespace
	Addr    netip.Addr // for addresses
	Port    uint32     // for all but nftables: the netlink port that asked for it, by default the process's PID as its own PID namespace numbers it; 0: the kernel, or not known
}

// watchBuffer is the kernel's receive buffer of each of the two sockets, in bytes. It is a bound, not
// taken before it is needed.
const watchBuffer = 1 << 20

// watchGroupNftables is the group of nftables' notifications (uapi/linux/netfilter/nfnetlink.h).
const watchGroupNftables = 7

// watchGroupsRoute are those of rtnetlink (uapi/linux/rtnetlink.h): interfaces, addresses, routes and
// rules of routing, traffic control, and of the sysctls those that the kernel tells of.
var watchGroupsRoute = []int{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
	unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
	unix.RTNLGRP_TC, unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF}

// Watcher hears the kernel of many namespaces with one goroutine, its Run.
type Watcher struct{ poll *poller }

// NewWatcher makes one. Close it after its Watches.
func NewWatcher() (*Watcher, error) {
	p, err := newPoller()
	if err != nil {
		return nil, fmt.Errorf("watch namespaces: %w", err)
	}
	return &Watcher{p}, nil
}

// Run hears until the context ends or Close is called, and then returns nil.
func (o *Watcher) Run(ctx context.Context) error { return o.poll.run(ctx) }

// Close ends Run.
func (o *Watcher) Close() error { return o.poll.close() }

// WatchConfig says what to watch.
type WatchConfig struct {
	Namespace string      // path of the network namespace; empty: the process's own
	Own       *Namespace  // whose changes are ours; to be closed after the Watch. nil: see own
	Adopted   bool        // a former Watch left its tripwire here: its absence is an event
	Tell      func(Event) // called for every event, one at a time; must not block, nor call the Watch
}

// Watch notices what others change in one namespace. Our own tables are owned, so that nobody can
// change them, and a flush by somebody else skips them without a word. Therefore the Watch lays a
// tripwire, an empty table that anybody can delete and that a flush deletes, and lays it again after
// it told.
//
// It tells, it does not repair. While it is open the namespace lives on.
type Watch struct {
	cfg      WatchConfig
	file     *os.File // the namespace
	nft      *polled
	route    *polled
	tripwire *tripwire

	mu      sync.Mutex // of what follows, and held while Tell is called
	closed  bool
	change  watchChange // what is gathered of a transaction
	laid    time.Time   // the tripwire, last
	relay   *time.Timer // the tripwire lies cut until then
	refused bool        // that it cannot be laid was told
	picture *watchPicture
}

// Watch begins to watch: whatever happens after it returned is told while Run runs. What is there
// already is taken as it is.
func (o *Watcher) Watch(cfg WatchConfig) (*Watch, error) {
	w := &Watch{cfg: cfg, picture: newWatchPicture()}
	if err := w.open(o.poll); err != nil {
		return nil, errors.Join(fmt.Errorf("watch %s: %w", kernelPlace(cfg.Namespace), err), w.Close())
	}
	return w, nil
}

func (w *Watch) open(p *poller) (err error) {
	if w.cfg.Namespace == "" {
		w.file, err = openNode(ownNamespacePath)
	} else {
		w.file, err = OpenNamespace(w.cfg.Namespace)
	}
	if err != nil {
		return err
	}
	if w.tripwire, err = openTripwire(w.file, kernelPlace(w.cfg.Namespace)); err != nil {
		return err
	}
	w.mu.Lock() // nothing is told before the picture is drawn
	defer w.mu.Unlock()
	if w.nft, err = w.hear(p, unix.NETLINK_NETFILTER, []int{watchGroupNftables}, w.readNftables); err != nil {
		return err
	}
	if w.route, err = w.hear(p, unix.NETLINK_ROUTE, watchGroupsRoute, w.readRoute); err != nil {
		return err
	}
	if _, err = w.picture.look(w.file); err != nil {
		return err
	}
	there, err := w.tripwire.there()
	if err != nil {
		return err
	}
	if w.cfg.Adopted && !there {
		w.emit(Event{Time: time.Now(), Kind: EventNftables, Table: tripwireName, Flushed: true,
			What: "the ruleset was flushed, or " + tripwireName + " deleted, while nobody watched"})
	}
	return w.tripwire.lay()
}

// hear opens a socket for notifications and hands it to the poller.
func (w *Watch) hear(p *poller, protocol int, groups []int, read func([]byte) error) (*polled, error) {
	fd := -1
	err := EnterFile(w.file, func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil { // the kernel is our only peer: unicast of others is refused at their send
		err = unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, watchBuffer)
	}
	if err == nil && protocol == unix.NETLINK_NETFILTER {
		err = ignorePorts(fd, w.ownPorts())
	}
	for _, g := range groups {
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hear of changes: %w", err), unix.Close(fd))
	}
	return p.add(fd, func(buf []byte) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.closed {
			return
		}
		b, err := readKernel(fd, buf)
		if err == nil && len(b) > 0 {
			err = read(b)
		} else if err != nil {
			err = w.lost(protocol, err)
		}
		if err != nil {
			w.emit(Event{Time: time.Now(), Kind: EventBlind, What: "changes could not be read: " + err.Error()})
		}
	})
}

// lost is told where messages were lost, or could not be read.
func (w *Watch) lost(protocol int, cause error) error {
	if !errors.Is(cause, unix.ENOBUFS) {
		return cause
	}
	if protocol == unix.NETLINK_NETFILTER {
		w.change = watchChange{}
		w.blind("the ruleset")
		w.layAgain(time.Now()) // its end may be among what was lost
		return nil
	}
	w.blind("interfaces, addresses and routes")
	return w.lookAgain()
}

// Look compares interfaces, addresses, routes and sysctls with what they were, and tells what is new.
// It is for what the kernel tells nobody: most sysctls, some programs on interfaces.
func (w *Watch) Look() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return fmt.Errorf("watch %s: %w", kernelPlace(w.cfg.Namespace), os.ErrClosed)
	}
	return w.lookAgain()
}

func (w *Watch) lookAgain() error {
	events, err := w.picture.look(w.file)
	for _, e := range events {
		w.emit(e)
	}
	if err != nil {
		return fmt.Errorf("watch %s: %w", kernelPlace(w.cfg.Namespace), err)
	}
	return nil
}

func (w *Watch) readRoute(b []byte) error {
	for m := range kernelMessages(b) {
		for _, e := range w.picture.note(m.kind, m.body) {
			e.Port = m.port
			w.emit(e)
		}
	}
	return nil
}

func (w *Watch) emit(e Event) {
	if w.cfg.Tell != nil {
		w.cfg.Tell(e)
	}
}

// blind is the event of a loss.
func (w *Watch) blind(of string) {
	w.emit(Event{Time: time.Now(), Kind: EventBlind,
		What: "changes of " + of + " came faster than they could be read; some are not known"})
}

// Remove takes the tripwire away, for a workload that is to be left as it was found.
func (w *Watch) Remove() error { return w.tripwire.remove() }

// Close ends the Watch: nothing is told any more. The tripwire stays, so that the next Watch sees what
// happened in between.
func (w *Watch) Close() error {
	w.mu.Lock()
	w.closed = true
	if w.relay != nil {
		w.relay.Stop()
	}
	w.mu.Unlock()
	var err error
	for _, s := range []*polled{w.nft, w.route} {
		if s != nil {
			err = errors.Join(err, s.close())
		}
	}
	if w.tripwire != nil {
		err = errors.Join(err, w.tripwire.close())
	}
	if w.file != nil {
		err = errors.Join(err, w.file.Close())
		w.file = nil
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
