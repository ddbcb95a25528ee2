package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/identity"
)

// errWithdrawn answers those who wait for a workload that ended meanwhile.
var errWithdrawn = errors.New("workload ended")

// workload is one container's namespace on this node. Its routine is the only writer of the
// namespace's rules; everybody else asks it, by kick, sync or ask.
//
//	start ──→ routine: open, reconcile ⇄ repair ──→ leave (rules stay) or remove (rules go)
type workload struct {
	d      *Daemon
	log    *slog.Logger
	id     string
	cookie uint64

	adopted bool // a former daemon had it

	kicks chan struct{}                  // size 1: bursts fold
	asks  chan func(*firewall.Namespace) // run by the routine; nil when it could not be opened
	ctx   context.Context                // the routine's, ended by end or with the daemon's life
	end   context.CancelCauseFunc
	done  chan struct{} // closed when the routine has ended

	names names // learned from DNS answers

	mu      sync.Mutex
	record  StoredWorkload
	cause   string // of the latest kick
	waiters []chan error
	state   inForce
	reader  *firewall.Reader     // nil while the namespace is not open
	start   *start               // nil: nobody was asked
	places  map[string]place     // of the interfaces, by the name that CNI gave; replaced, never written to
	found   map[string]time.Time // since when interfaces are known that no ADD told of
	gaps    []string             // of its interfaces, that were told
}

// inForce is what a workload's namespace holds, for those who ask.
type inForce struct {
	spec    firewall.Spec
	valid   bool // spec is in force
	applied time.Time
	err     error // why the latest reconcile did not take force
}

// cause of a workload's end.
var (
	errStopping = errors.New("the daemon stops") // rules stay
	errLeft     = errors.New("left")             // rules stay: another takes them over, or the kernel drops them
	errRemoved  = errors.New("removed")          // rules go
)

func (w *workload) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.record.Namespace + "/" + w.record.Name
}

// stored is what the store should hold of it.
func (w *workload) stored() StoredWorkload {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.record
}

func (w *workload) replace(r StoredWorkload) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.record = r
}

func (w *workload) inForce() inForce {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

func (w *workload) gateways() []netip.Addr { return w.stored().Gateways }

func (w *workload) has(ifname string) bool {
	return slices.ContainsFunc(w.stored().Interfaces, func(i StoredInterface) bool { return i.Name == ifname })
}

// merged is the record with what a further ADD of the same container brings.
func (w *workload) merged(more StoredWorkload) (StoredWorkload, bool) {
	r, changed := w.stored(), false
	r.Interfaces = slices.Clone(r.Interfaces)
	for _, ifc := range more.Interfaces {
		at := slices.IndexFunc(r.Interfaces, func(i StoredInterface) bool { return i.Name == ifc.Name })
		switch {
		case at < 0:
			r.Interfaces = append(r.Interfaces, ifc)
		case !sameInterface(r.Interfaces[at], ifc), r.Interfaces[at].Found: // re-made by the runtime under the same name; or found before
			r.Interfaces[at] = ifc
		default:
			continue
		}
		changed = true
	}
	if !changed {
		return r, false
	}
	r.Gateways = union(r.Gateways, more.Gateways)
	r.Resolvers = union(r.Resolvers, more.Resolvers)
	return r, true
}

// without is the record less one interface, and whether there is still one of which an ADD told.
func (w *workload) without(ifname string) (StoredWorkload, bool) {
	r := w.stored()
	if ifname == "" {
		return r, false
	}
	r.Interfaces = slices.DeleteFunc(slices.Clone(r.Interfaces), func(i StoredInterface) bool { return i.Name == ifname })
	return r, slices.ContainsFunc(r.Interfaces, func(i StoredInterface) bool { return !i.Found })
}

func sameInterface(a, b StoredInterface) bool {
	return a.Host == b.Host && a.HostIndex == b.HostIndex && a.MAC == b.MAC && slices.Equal(a.Addrs, b.Addrs)
}

func union(a, b []netip.Addr) []netip.Addr {
	out := append(slices.Clone(a), b...)
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// kick asks for a reconcile and does not wait.
func (w *workload) kick(cause string) {
	w.mu.Lock()
	w.cause = cause
	w.mu.Unlock()
	select {
	case w.kicks <- struct{}{}:
	default: // one is due already and will see what is new
	}
}

// want asks for a reconcile, and gives the channel on which the one that begins after the call
// will answer, unless the workload ends.
func (w *workload) want(cause string) <-chan error {
	answer := make(chan error, 1)
	w.mu.Lock()
	w.waiters = append(w.waiters, answer)
	w.mu.Unlock()
	w.kick(cause)
	return answer
}

// sync asks for a reconcile and waits until it is in force.
func (w *workload) sync(ctx context.Context, cause string) error {
	answer := w.want(cause)
	select {
	case err := <-answer:
		return err
	case <-w.done:
		return errWithdrawn
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask runs f on the routine, which holds the namespace, and waits for it.
func (w *workload) ask(ctx context.Context, f func(*firewall.Namespace) error) error {
	answer := make(chan error, 1)
	run := func(ns *firewall.Namespace) { answer <- f(ns) }
	select {
	case w.asks <- run:
	case <-w.done:
		return errWithdrawn
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-answer:
		return err
	case <-w.done:
		return errWithdrawn
	case <-ctx.Done():
		return ctx.Err()
	}
}

// identity is what the index should know of the workload. Labels, service and ports that the
// request did not bring are left to the index, which has them from the inventory.
func (w *workload) identity(listed bool) identity.Workload {
	r := w.stored()
	if len(r.Labels) == 0 && !listed {
		r.Labels = r.RuntimeLabels
	}
	me := identity.Workload{
		ID: r.ID, Namespace: r.Namespace, Name: r.Name, Node: w.d.cfg.Node, Labels: r.Labels,
		Addrs: addrsOf(r.Interfaces), Local: true, Source: identity.SourceCNI, Since: r.Since,
	}
	if len(r.Labels) > 0 || !listed {
		me.Service = identity.ServiceOf(r.Namespace, r.Name, r.Labels, w.d.cfg.LabelOrder)
	}
	return me
}

// interfaces is the record's interfaces as package firewall wants them.
func (w *workload) interfaces() ([]firewall.Interface, error) {
	var out []firewall.Interface
	w.mu.Lock()
	stored, places := w.record.Interfaces, w.places
	w.mu.Unlock()
	for _, i := range stored {
		p, looked := places[i.Name]
		if looked && p.absent {
			continue
		}
		mac, err := net.ParseMAC(i.MAC)
		if err != nil && i.MAC != "" {
			return nil, fmt.Errorf("interface %s: %w", i.Name, err)
		}
		out = append(out, firewall.Interface{Name: cmp.Or(p.name, i.Name), Host: i.Host, HostIndex: i.HostIndex, MAC: mac, Addrs: i.Addrs})
	}
	return out, nil
}

// verify compares what the kernel holds with what it should.
func (w *workload) verify(ctx context.Context) error {
	if err := w.sync(ctx, "check"); err != nil {
		return err
	}
	return w.ask(ctx, func(ns *firewall.Namespace) error {
		if ns == nil {
			return errors.New("not opened yet")
		}
		_, err := check(ns)
		return err
	})
}

// present says whether the workload's namespace is still at its path. While we hold it open its
// inode is its own, so looking is enough; only where that differs is the cookie asked.
func (w *workload) present(g *grip) bool {
	r := w.stored()
	var st unix.Stat_t
	if g.ns != nil && unix.Stat(r.NetNS, &st) == nil && st.Ino == g.inode {
		return true
	}
	cookie, err := firewall.Cookie(r.NetNS)
	return err == nil && cookie == r.Cookie
}
