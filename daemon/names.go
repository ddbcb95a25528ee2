package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/flow"
	"github.com/bulkhead-firewall/bulkhead/identity"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

// names is what a workload learns from DNS answers, and what of it is in force. It lives as long as the
// workload, with its namespace open or not.
type names struct {
	*flow.Names

	// mu is held from looking at what policy says to that being in force, so that an answer never puts
	// an older policy's word in force.
	mu      sync.Mutex
	entries []policy.NameEntry
	stored  uint64 // version that is in the store
	refused uint64 // told of already
}

// listener reads one namespace's answers.
type listener struct {
	*firewall.Answers
	cfg  firewall.AnswersConfig
	end  context.CancelFunc
	done chan struct{}

	unseen, failed uint64 // told of already
}

// resolvers are the DNS servers that the workload was configured with.
func (w *workload) resolvers() []netip.Addr {
	return union(w.stored().Resolvers, w.d.cfg.Resolvers)
}

// followNames makes names what policy says now: answers are read where it names any, and addresses
// that are known by name are open for what it says of them. Called before the rules are applied.
func (w *workload) followNames(ctx context.Context, g *grip, spec firewall.Spec) error {
	n := &w.names
	n.mu.Lock()
	n.entries = spec.Sides.Egress.Names
	patterns := make([]string, 0, len(n.entries))
	for _, e := range n.entries {
		patterns = append(patterns, e.Name)
	}
	n.SetPatterns(patterns)
	n.Keep(w.opens())
	// All of them: those without an entry lose what they had.
	err := g.ns.Learn(w.openingsLocked(union(n.Addrs(), g.ns.Learned())))
	n.mu.Unlock()
	if err != nil {
		return fmt.Errorf("names: %w", err)
	}
	w.listen(ctx, g, spec)
	return nil
}

// listen begins, ends or goes on to read answers. Without it the rules hold all the same, so that
// failing is a warning, and tried again at the next sweep.
func (w *workload) listen(ctx context.Context, g *grip, spec firewall.Spec) {
	cfg := firewall.AnswersConfig{Namespace: w.stored().NetNS, Interfaces: spec.Interfaces, Closed: spec.AnswersClosed, Hear: spec.HearsOnly()}
	if g.answers != nil && (!spec.Hears() || !reflect.DeepEqual(g.answers.cfg, cfg)) {
		g.answers.close(w)
		g.answers = nil
	}
	about := "answers " + w.id
	if g.answers != nil || !spec.Hears() {
		w.d.warn(about, "")
		return
	}
	a, err := firewall.OpenAnswers(cfg)
	if err != nil {
		w.d.warn(about, fmt.Sprintf("%s: no names are learned, and what policy allows by name stays as it is: %v", w, err))
		return
	}
	w.d.warn(about, "")
	ctx, end := context.WithCancel(ctx)
	l := &listener{Answers: a, cfg: cfg, end: end, done: make(chan struct{})}
	g.answers = l
	go func() {
		defer close(l.done)
		if err := a.Run(ctx, func(x flow.Answer) error { return w.onAnswer(g.ns, x) }); err != nil {
			w.log.Error("DNS answers are read no more", "err", err)
		}
	}()
}

// close ends the listener; what waits in its queue is asked for again by whoever asked.
func (l *listener) close(w *workload) {
	if l == nil {
		return
	}
	l.end()
	<-l.done
	if err := l.Close(); err != nil {
		w.log.Warn("DNS answers not closed", "err", err)
	}
}

// onAnswer puts what an answer says in force. The answer is delivered when it returns.
func (w *workload) onAnswer(ns *firewall.Namespace, a flow.Answer) error {
	n := &w.names
	n.mu.Lock()
	defer n.mu.Unlock()
	touched := n.Learn(a, w.opens(), w.d.now())
	if len(touched) == 0 {
		return nil
	}
	w.d.markDirty()
	return ns.Learn(w.openingsLocked(touched))
}

// openingsLocked are addresses with what they are open for. What has ended already holds until the
// next sweep has looked whether it is in use.
func (w *workload) openingsLocked(addrs []netip.Addr) []firewall.Learned {
	soonest := w.d.now().Add(flow.NameFloor)
	out := make([]firewall.Learned, 0, len(addrs))
	for _, a := range addrs {
		entries, until := w.names.Openings(a, w.names.entries)
		if until.Before(soonest) {
			until = soonest
		}
		out = append(out, firewall.Learned{Addr: a, Entries: entries, Until: until})
	}
	return out
}

// opens says which addresses a name may open: those of the world. Whoever answers for a name of the
// outside must not open the way to pods, Services, nodes or metadata servers, which policies name by
// what they are.
func (w *workload) opens() func(netip.Addr) bool {
	view := w.d.index.View()
	return func(a netip.Addr) bool {
		switch p := view.Peer(a); p.Kind {
		case identity.Pod, identity.Node, identity.VIP:
			return false
		}
		return slices.ContainsFunc(view.World(), func(p netip.Prefix) bool { return p.Contains(a) })
	}
}

// sweepNames closes what has ended and nobody uses.
func (w *workload) sweepNames(g *grip) {
	n := &w.names
	w.tellNames(g.answers)
	if g.ns == nil || len(n.Addrs()) == 0 {
		return
	}
	used, err := g.ns.InUse()
	if err == nil {
		n.mu.Lock()
		touched := n.Keep(w.opens())
		touched = union(touched, n.Sweep(func(a netip.Addr) bool { return used[a] }, w.d.now()))
		err = g.ns.Learn(w.openingsLocked(touched))
		n.mu.Unlock()
		if len(touched) > 0 {
			w.d.markDirty()
		}
	}
	if err != nil && !errors.Is(err, firewall.ErrGone) {
		w.log.Warn("names not swept", "err", err)
	}
}

// triesNames says that a shadow that selects the workload names names: those it would know must be
// known to judge it.
func (rb *rulebook) triesNames(view *identity.View, w *identity.Workload) bool {
	return rb.trials != nil && len(rb.trials.only.Entries(view, w).Egress.Names) > 0
}

// namesOf gives the names under which a workload of this node knows an address.
func (d *Daemon) namesOf(id string, server netip.Addr) []string {
	d.mu.Lock()
	w := d.workloads[id]
	d.mu.Unlock()
	if w == nil {
		return nil
	}
	return w.names.Of(server)
}

// namesKnown gives the names under which a client, if it is a workload of this node, knows a server.
func (d *Daemon) namesKnown(client, server identity.Peer) []string {
	if w := d.here(client); w != nil {
		return w.names.Of(server.Addr)
	}
	return nil
}

// resolveServer is resolve for the server of a client, which may be a DNS name that the client looked up.
func (d *Daemon) resolveServer(view *identity.View, client identity.Peer, name string, notes *[]string) (identity.Peer, error) {
	var addrs []netip.Addr
	if w := d.here(client); w != nil {
		for _, k := range w.names.Known(false) {
			if k.Name == strings.ToLower(strings.TrimSuffix(name, ".")) {
				addrs = append(addrs, k.Addr)
			}
		}
	}
	if len(addrs) == 0 {
		return resolve(view, name, notes)
	}
	if len(addrs) > 1 {
		*notes = append(*notes, fmt.Sprintf("%s is %d addresses; %s stands for them", name, len(addrs), addrs[0]))
	}
	return view.Peer(addrs[0]), nil
}

// here is the workload of this node that a peer is, or nil.
func (d *Daemon) here(p identity.Peer) *workload {
	if p.Kind != identity.Pod || p.Workload == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.workloads[p.Workload.ID]
}
