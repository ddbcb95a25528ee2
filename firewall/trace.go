package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
)

const (
	// traceWait is how long a probe may be under way: a neighbour's address may have to be found first.
	traceWait = time.Second
	// traceGrace is how long is listened for what others do with a packet that our rules let through,
	// traceNode for what the node does with one whose destination is not here.
	traceGrace = 10 * time.Millisecond
	traceNode  = 100 * time.Millisecond
)

// Probe is a packet that a [Trace] sends: a connection's birth.
type Probe struct {
	Client, Server netip.Addr
	Protocol       identity.Protocol // TCP: a SYN; UDP: an empty datagram; ICMP and ICMPv6: an echo request
	Port           uint16            // nothing for ICMP
}

// Stage is one of the four places where a packet between two workloads is judged.
type Stage uint8

const (
	AtClient      Stage = iota // leaving the client's namespace
	AtClientGuard              // on the client's interface, out of its reach
	AtServerGuard              // on the server's interface, where its guard remembers what comes in
	AtServer                   // entering the server's namespace
	onNode                     // in tables of others between the guards
)

func (s Stage) String() string {
	return [...]string{"client's namespace", "client's guard", "server's guard", "server's namespace", "node"}[s]
}

// Fate is what became of the probe in a place.
type Fate uint8

const (
	NotReached Fate = iota
	Passed
	Dropped
	NotHere // the place is not on this node
)

func (f Fate) String() string { return [...]string{"not reached", "pass", "drop", "not here"}[f] }

// Step is what happened in one place, and the rule that decided it. All but Fate is empty where no rule
// looked at the packet.
type Step struct {
	Fate    Fate
	Table   string // "inet bulkhead", or somebody else's
	Chain   string
	Rule    string // as nft prints it; empty for a chain's policy, and for rules of others
	Comment string
	Alerted bool // passed, and enforce would have dropped it

	Rejected bool // dropped, and who asked was told so
}

// Traced is what became of a probe.
type Traced struct {
	Steps  [4]Step // by Stage
	Node   Step    // what others' tables on the node did between the guards; NotReached where none saw it
	Unsent error   // why the packet could not even be sent, no route for instance
}

// Trace sends one packet and hears from the kernel which rules it met. It asks by a table of its own in
// each place, with one rule that matches the packet's addresses and ports exactly and turns on nftables'
// tracing for it. The tables belong to a socket and do not persist: they end with the Trace, or with the
// process.
type Trace struct {
	// ClientPort is the port that the probe comes from, the identifier of an echo request.
	ClientPort uint16

	probe    Probe
	from, to *Namespace // to is nil where the server is not here
	sender   *traceSender
	parts    []tracePart
}

// OpenTrace prepares to send a probe from one workload to another; to is nil where the server is no
// workload of this node. Close it.
func OpenTrace(from, to *Namespace, p Probe) (*Trace, error) {
	t := &Trace{probe: p, from: from, to: to}
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	err := t.from.locked(func() (err error) {
		t.sender, err = openTraceSender(from.file, p)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	t.ClientPort = t.sender.port
	if err := t.listen(); err != nil {
		return nil, fmt.Errorf("trace: %w", errors.Join(err, t.Close()))
	}
	return t, nil
}

func (t *Trace) check() error {
	p := t.probe
	switch {
	case !p.Client.IsValid() || !p.Server.IsValid() || p.Client.Is6() != p.Server.Is6():
		return fmt.Errorf("from %s to %s: want two addresses of one family", p.Client, p.Server)
	case t.from == t.to || p.Client == p.Server:
		return errors.New("client and server are the same workload; what it sends to itself is never judged")
	case p.Protocol == (site{v6: p.Server.Is6()}).icmp():
	case p.Protocol == identity.TCP || p.Protocol == identity.UDP:
	default:
		return fmt.Errorf("%s: a probe is TCP, UDP or an echo request of the addresses' family", p.Protocol)
	}
	return nil
}

// Run sends the packet and says what became of it. A packet that rules drop is no error.
func (t *Trace) Run(ctx context.Context) (Traced, error) {
	forget, err := t.recall()
	if err != nil {
		return Traced{}, fmt.Errorf("trace: %w", err)
	}
	unsent := t.sender.send()
	events, err := t.collect(ctx)
	err = errors.Join(err, forget())
	out := t.tell(events)
	if out.Steps[AtClient].Fate == NotReached {
		out.Unsent = unsent // else it is what the kernel tells a program whose packet was dropped
	}
	if err != nil {
		err = fmt.Errorf("trace: %w", err)
	}
	return out, err
}

// Close ends the probe and takes the tables away.
func (t *Trace) Close() error {
	var err error
	for _, p := range t.parts {
		err = errors.Join(err, p.close())
	}
	if t.sender != nil {
		err = errors.Join(err, t.sender.close())
	}
	return err
}

// collect gathers what the kernel tells until the probe's fate is known.
func (t *Trace) collect(ctx context.Context) ([]traceEvent, error) {
	var events []traceEvent
	end := time.Now().Add(traceWait)
	final := false
	for ctx.Err() == nil {
		left := time.Until(end)
		if left <= 0 {
			return events, nil
		}
		more, err := t.wait(min(left, 50*time.Millisecond))
		if err != nil {
			return events, err
		}
		events = append(events, more...)
		if grace, known := t.decided(events); known && !final {
			final = true
			end = time.Now().Add(grace)
		}
	}
	return events, ctx.Err()
}

// wait waits for messages in any of the places.
func (t *Trace) wait(d time.Duration) ([]traceEvent, error) {
	fds := make([]unix.PollFd, len(t.parts))
	for i, p := range t.parts {
		fds[i] = unix.PollFd{Fd: int32(p.ear.fd), Events: unix.POLLIN}
	}
	if _, err := unix.Poll(fds, max(1, int(d.Milliseconds()))); err != nil && !errors.Is(err, unix.EINTR) {
		return nil, fmt.Errorf("wait for the kernel: %w", err)
	}
	var out []traceEvent
	for i := range t.parts {
		list, err := t.parts[i].read()
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}

// locked runs f while nobody else works on the namespace.
func (ns *Namespace) locked(f func() error) error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.closed {
		return fmt.Errorf("network namespace %s: %w", ns.path, os.ErrClosed)
	}
	return f()
}
