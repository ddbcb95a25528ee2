package attack

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/alert"
	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/test/lab"
)

// trick is one attack.
type trick struct {
	name string
	// run makes it once. It is made again and again while the daemon restarts, then beside other
	// tricks of its threat unless alone is set. An error says that it could not be made.
	run func(a *attempt) error
	// wins says whether what an ear hears is the attack's success; nil: whatever carries the token.
	wins func(a *attempt, at *host, b []byte) bool
	// atSocket listens where a socket would instead of at the interface: for what the victim's own
	// rules stop, which its interface has heard.
	atSocket bool
	// outsider is who attacks, from a workload whose egress is open, instead of attacker: what stops it
	// is the victim's end.
	outsider bool
	// counter is the one of the attacker's guard that tells of it: late, raw or spoofed; or none.
	counter string
	// alert is what the daemon must raise about the attacker while it is up; or none.
	alert alert.Kind
	// harmless says why it brings nothing to anybody even without a firewall: it is tried all the
	// same. Empty: it must win in the bare lab.
	harmless string
	// whole says that what it sends is one packet, of however many frames.
	whole bool
	alone bool
	// states in which it is tried; default bare, up, restarting, down.
	states []state
}

// attempt is one trick in one state.
type attempt struct {
	*arena
	*testing.T
	trick  trick
	state  state
	token  []byte // in every frame that tells
	number uint16 // of the attempt
	made   uint32 // how often it was made

	watchers map[*watcher]*ear
	sent     atomic.Int64
}

var tokens atomic.Uint32

// threat tries the tricks of one row of THREATS in every state.
func threat(t *testing.T, row int, tricks []trick) {
	for _, s := range []state{bare, up, restarting, down} {
		var todo []trick
		for _, tr := range tricks {
			if len(tr.states) == 0 || contains(tr.states, s) {
				todo = append(todo, tr)
			}
		}
		if len(todo) == 0 {
			continue
		}
		t.Run(string(s), func(t *testing.T) {
			w := enter(t, s == bare)
			// What went wrong before belongs to no trick of this state.
			w.trading(t, "before the tricks")
			w.be(t, s)
			t.Run("tricks", func(t *testing.T) {
				for _, tr := range todo {
					t.Run(tr.name, func(t *testing.T) {
						if s == restarting && !tr.alone {
							t.Parallel()
						}
						try(t, w, row, tr, s)
					})
				}
			})
			w.trading(t, "at the end")
			if s == restarting {
				w.be(t, up)
			}
		})
	}
}

// trading holds that the allowed traffic lost nothing since the last call.
func (w *arena) trading(t *testing.T, when string) {
	t.Helper()
	if w.trade == nil {
		return
	}
	if err := w.trade.round(); err != nil {
		t.Errorf("allowed traffic, %s: %v", when, err)
	}
}

func contains[T comparable](list []T, x T) bool {
	for _, y := range list {
		if x == y {
			return true
		}
	}
	return false
}

// try makes one attempt and judges it.
func try(t *testing.T, w *arena, row int, tr trick, s state) {
	a := &attempt{arena: w, T: t, trick: tr, state: s, watchers: map[*watcher]*ear{},
		number: uint16(tokens.Add(1))}
	a.token = fmt.Appendf(nil, "bulkhead-atk-%06x!", a.number)
	defer func() { record(row, tr, s, !t.Failed()) }()
	a.listen()
	defer a.deafen()
	before := a.counters()
	began := time.Now()
	if s == restarting {
		// A kill and a start, and a kill at least begun: whatever instant there is, it was tried.
		for from := w.cycles.Load(); w.cycles.Load() < from+3 && !t.Failed(); time.Sleep(25 * time.Millisecond) {
			a.run()
		}
	} else {
		a.run()
	}
	if t.Failed() {
		return
	}
	if s == bare {
		a.mustWin()
		return
	}
	must(t, a.fence())
	heard := a.heard()
	if heard != "" {
		t.Errorf("the attack won: %s", heard)
	}
	if tr.counter != "" && s != restarting {
		if after := a.counters(); after[tr.counter] <= before[tr.counter] {
			t.Errorf("counter %s of the guard: %d before, %d after %d frames", tr.counter, before[tr.counter], after[tr.counter], a.sent.Load())
		}
	}
	if tr.alert != "" && s == up && !eventually(func() bool { return a.alerted(tr.alert, began) }) {
		t.Errorf("no alert %s about %s", tr.alert, a.from().name)
	}
}

// fresh is an identification of a packet in fragments that no other has.
func (a *attempt) fresh() uint16 {
	a.made++
	return a.number*97 + uint16(a.made)
}

func (a *attempt) run() {
	if err := a.trick.run(a); err != nil {
		a.Errorf("could not be tried: %v", err)
	}
}

// listen has the ears watch for the trick.
func (a *attempt) listen() {
	match := holds(a.token)
	if a.trick.wins != nil {
		match = func(h *host, b []byte) bool { return a.trick.wins(a, h, b) }
	}
	others := match
	match = func(h *host, b []byte) bool { return h != a.from() && others(h, b) } // it may hear itself
	ears := a.arena.frames
	if a.trick.atSocket {
		ears = a.arena.sockets
	}
	for _, e := range ears {
		a.watchers[e.watch(match)] = e
	}
}

func (a *attempt) deafen() {
	for w, e := range a.watchers {
		e.unwatch(w)
	}
}

// heard says who heard the attack; empty when nobody did.
func (a *attempt) heard() string {
	var out []string
	for w, e := range a.watchers {
		if n := w.count.Load(); n > 0 {
			out = append(out, fmt.Sprintf("%s heard %d, first %s", e.host.name, n, *w.first.Load()))
		}
	}
	return strings.Join(out, "; ")
}

// frames sends frames from eth0 of who attacks with CAP_NET_RAW alone. It is an error when the
// kernel takes none of them.
func (a *attempt) frames(how string, frames ...[]byte) error {
	return a.framesFrom(a.from(), how, frames...)
}

// mustWin holds that the trick works where nothing stops it: all of what was sent was heard by one.
func (a *attempt) mustWin() {
	a.Helper()
	most := func() (n int64) {
		for w := range a.watchers {
			n = max(n, w.count.Load())
		}
		return n
	}
	want := max(a.sent.Load(), 1)
	if a.trick.whole {
		want = 1
	}
	if a.trick.harmless != "" {
		must(a, a.fence())
		if most() > 0 && !a.trick.whole { // else it is for the victim's IP stack to say
			a.Errorf("not harmless: %s", a.heard())
		}
	} else if !within(3*time.Second, func() bool { return most() >= want }) {
		a.Errorf("without a firewall %d of %d frames were heard: the trick proves nothing", most(), want)
	}
}

// framesFrom is frames for another host.
func (a *attempt) framesFrom(from *host, how string, frames ...[]byte) error {
	s, err := a.arena.sender(from, lab.Raw)
	if err != nil {
		return err
	}
	out, err := s.send(how, from.device, frames...)
	if err != nil {
		return err
	}
	a.sent.Add(int64(out.Sent))
	refused := strings.Join(out.Errs, "; ")
	if how == byRaw && a.state != bare && strings.Contains(refused, unix.EPERM.Error()) {
		return nil // the namespace's own rules stopped it: what netfilter drops on output fails so
	}
	if out.Sent == 0 {
		return fmt.Errorf("%s: %s", how, refused)
	}
	return nil
}

// fence returns when all that was sent before has arrived wherever it could: what is allowed, sent
// behind it on the same way, has. Silence then means that it was stopped.
func (a *attempt) fence() error {
	token := fmt.Appendf(nil, "bulkhead-fence-%06x!", tokens.Add(1))
	var outside *watcher
	for _, e := range a.arena.frames {
		if e.host == a.outsider && !a.trick.outsider || e.host == a.victim && a.trick.outsider {
			outside = e.watch(holds(token))
			defer e.unwatch(outside)
		}
	}
	s, err := a.arena.sender(a.from(), lab.Raw)
	if err != nil {
		return err
	}
	target := a.outsider
	if a.trick.outsider {
		target = a.victim
	}
	arrived := eventually(func() bool {
		out, sendErr := s.send(byPacket, a.from().device, a.packetFrom(a.from(), false, target, protoUDP,
			udpHead(a.from().v4, target.v4, 40000, 5353, token)))
		if sendErr != nil || out.Sent == 0 {
			err = fmt.Errorf("fence: %v %w", out.Errs, sendErr)
			return true
		}
		for range 20 {
			if outside.count.Load() > 0 {
				return true
			}
			time.Sleep(time.Millisecond)
		}
		return false
	})
	if err != nil {
		return err
	}
	if !arrived {
		return fmt.Errorf("fence: what %s may send did not arrive: silence proves nothing", a.from().name)
	}
	if a.trade == nil {
		return nil
	}
	// To the victim leads another way: the peer's. Its answers mean that the victim hears.
	if err := a.trade.round(); err != nil {
		return fmt.Errorf("allowed traffic: %w", err)
	}
	return nil
}

// counters reads the counters of the guard of who attacks.
func (a *attempt) counters() map[string]uint64 {
	if a.state == bare || a.trick.counter == "" {
		return nil
	}
	out := map[string]uint64{}
	node, err := firewall.OpenNamespace(a.node.path)
	must(a, err)
	defer node.Close()
	conn, err := nftables.New(nftables.WithNetNSFd(int(node.Fd())))
	must(a, err)
	list, err := conn.GetObjects(&nftables.Table{Family: nftables.TableFamilyNetdev, Name: firewall.GuardPrefix + a.from().guarded})
	must(a, err)
	for _, o := range list {
		switch o := o.(type) {
		case *nftables.CounterObj:
			out[o.Name] = o.Packets
		case *nftables.NamedObj:
			if c, ok := o.Obj.(*expr.Counter); ok {
				out[o.Name] = c.Packets
			}
		}
	}
	return out
}

// from is who attacks.
func (a *attempt) from() *host {
	if a.trick.outsider {
		return a.outsider
	}
	return a.attacker
}

// alerted says whether the daemon told of the attacker. Equal alerts within a minute are folded into
// the first, so that a trick may find one that another caused.
func (a *attempt) alerted(kind alert.Kind, _ time.Time) bool {
	c := a.client()
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	list, err := c.Alerts(ctx, string(kind), 1000)
	if err != nil {
		return false
	}
	for _, raw := range list {
		var got alert.Alert
		if json.Unmarshal(raw, &got) == nil && got.Client.Workload == a.from().name {
			return true
		}
	}
	return false
}

// exec runs a program in a workload.
func (a *attempt) exec(where *host, as lab.As, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return a.Exec(ctx, where.name, as, argv...)
}

// results are the lines of the table that the tests print at their end.
var results struct {
	sync.Mutex
	order []string
	line  map[string]map[state]string
	alert map[string]string
}

func record(row int, tr trick, s state, beaten bool) {
	results.Lock()
	defer results.Unlock()
	if results.line == nil {
		results.line, results.alert = map[string]map[state]string{}, map[string]string{}
	}
	key := fmt.Sprintf("%d %s", row, tr.name)
	if results.line[key] == nil {
		results.line[key] = map[state]string{}
		results.order = append(results.order, key)
	}
	word := "beaten"
	switch {
	case s == bare && tr.harmless == "":
		word = "wins"
	case s == bare:
		word = "harmless"
	}
	if !beaten {
		word = "FAILED"
	}
	results.line[key][s] = word
	results.alert[key] = strings.Trim(tr.counter+" "+string(tr.alert), " ")
}

// printTable says of every trick how it ended in which state.
func printTable(out io.Writer) {
	results.Lock()
	defer results.Unlock()
	if !testing.Verbose() || len(results.order) == 0 {
		return
	}
	const format = "%-46s %-10s %-10s %-10s %-10s %s\n"
	fmt.Fprintf(out, "\n"+format, "THREAT AND TRICK", "BARE", "UP", "RESTARTING", "DOWN", "TOLD BY")
	for _, key := range results.order {
		l := results.line[key]
		fmt.Fprintf(out, format, key, l[bare], l[up], l[restarting], l[down], results.alert[key])
	}
}
