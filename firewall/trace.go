package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
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

// recall notes what the sets of seen and denied connections hold of the probe's pair. forget takes out
// what the probe alone put there, so that the next connection of the pair is told as if the probe had
// never been.
func (t *Trace) recall() (forget func() error, err error) {
	var undo []func() error
	for i, ns := range []*Namespace{t.from, t.to} {
		if ns == nil {
			continue
		}
		d, peer := policy.Egress, t.probe.Server
		if i == 1 {
			d, peer = policy.Ingress, t.probe.Client
		}
		for _, s := range (site{v6: peer.Is6()}).told(d) {
			e := t.told(peer)
			there, err := ns.holds(s, e)
			if err != nil {
				return nil, err
			}
			if !there {
				undo = append(undo, func() error { return ns.drop(s, e) })
			}
		}
	}
	return func() error {
		var err error
		for _, f := range undo {
			err = errors.Join(err, f())
		}
		return err
	}, nil
}

// told are the sets that decide what is news: see SeenSet.
func (s site) told(d policy.Direction) []*Set {
	family := 4
	if s.v6 {
		family = 6
	}
	return []*Set{{Name: SeenSet(d, family), Key: s.flowKey()}, {Name: DeniedSet(d, family), Key: s.flowKey()}}
}

// told is the probe as an element of them.
func (t *Trace) told(peer netip.Addr) Element {
	var p packing
	p.addr(peer)
	p.proto(uint8(t.probe.Protocol))
	if t.probe.Protocol.IsICMP() {
		request, _ := site{v6: peer.Is6()}.echoTypes()
		p.port(uint16(request) << 8)
	} else {
		p.port(t.probe.Port)
	}
	p.done()
	return p.keys(false)[0]
}

// holds says whether a set of the namespace's own table has an element.
func (ns *Namespace) holds(s *Set, e Element) (there bool, err error) {
	err = ns.locked(func() (err error) {
		there, err = ns.in.get(unix.NFT_MSG_GETSETELEM, FamilyINet, "element of set "+s.Name, func(a *attrs) {
			a.name(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
			a.name(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
			a.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() { s.element(a, e, 0) })
		}, func(Family, []attr) {})
		return err
	})
	return there, err
}

// drop takes an element out of a set of the namespace's own table, if it is there.
func (ns *Namespace) drop(s *Set, e Element) error {
	err := ns.locked(func() error {
		b := newBatch()
		t := &Table{Place: InWorkload, Family: FamilyINet, Name: TableName}
		Change{Op: DeleteElements, Table: t, Name: s.Name, Set: s, Elements: []Element{e}}.encode(b, 0)
		return ns.in.commit(b)
	})
	if errors.Is(err, unix.ENOENT) {
		return nil
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

// decided says whether the probe's fate is known, and how long to go on listening.
func (t *Trace) decided(events []traceEvent) (time.Duration, bool) {
	got := t.tell(events)
	for _, s := range append(got.Steps[:], got.Node) {
		if s.Fate == Dropped {
			return 0, true
		}
	}
	switch {
	case t.to == nil && got.Steps[AtClientGuard].Fate == Passed:
		return traceNode, true
	case t.to != nil && got.Steps[AtServer].Fate == Passed && got.Steps[AtServer].Table != "":
		return traceGrace, true
	}
	return 0, false
}

// tell makes steps of events.
func (t *Trace) tell(events []traceEvent) Traced {
	var out Traced
	if t.to == nil {
		out.Steps[AtServerGuard].Fate, out.Steps[AtServer].Fate = NotHere, NotHere
	}
	var path [onNode + 1][]traceEvent
	for _, e := range events {
		path[e.stage] = append(path[e.stage], e)
	}
	for s := range out.Steps {
		if len(path[s]) > 0 {
			out.Steps[s] = stepOf(path[s])
		}
	}
	if len(path[onNode]) > 0 {
		out.Node = stepOf(path[onNode])
	}
	return out
}

// stepOf reads the rules that a packet met in one place, that which turned tracing on among them.
func stepOf(path []traceEvent) Step {
	step := Step{Fate: Passed}
	use := func(e traceEvent) {
		step.Table, step.Chain, step.Rule, step.Comment = e.table, e.chain, e.rule.Text, e.rule.Comment
	}
	for _, e := range path {
		switch {
		case e.drop:
			step.Fate = Dropped
			use(e)
			return step
		case e.ours && !bookkeeping(e.chain):
			use(e)
			step.Alerted = alerted(e.rule)
		}
	}
	return step
}

// bookkeeping says whether a chain only remembers and logs what another let through.
func bookkeeping(chain string) bool {
	for _, suffix := range []string{"_seen", "_udp", "_ping", "_alert", "_wide"} {
		if strings.HasSuffix(chain, suffix) {
			return true
		}
	}
	return false
}

// alerted says whether a rule lets through what enforce would deny.
func alerted(r Rule) bool {
	return strings.HasSuffix(r.Text, "_alert") || strings.Contains(r.Text, "@denied_") && strings.HasSuffix(r.Text, " accept")
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
