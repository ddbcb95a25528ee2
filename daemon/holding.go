package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"github.com/bulkhead-firewall/bulkhead/firewall"
	"github.com/bulkhead-firewall/bulkhead/holder"
)

// holding is what a holder has of this daemon's: a copy of each workload's nftables socket, by the
// namespace's cookie. While it is there, nobody in the container can change the rules, whether the
// daemon runs or not.
type holding struct {
	client *holder.Client // nil: none is configured
	mu     sync.Mutex
	former map[string]*os.File // of the former daemon, until the workload takes it up
}

func heldName(cookie uint64) string { return strconv.FormatUint(cookie, 10) }

// openHolder asks the holder for what the former daemon gave it.
func (d *Daemon) openHolder() {
	if d.cfg.Holder == "" {
		return
	}
	d.holding.client = holder.New(d.cfg.Holder)
	var err error
	d.holding.former, err = d.holding.client.List()
	d.warnHolder(err)
}

func (d *Daemon) warnHolder(err error) {
	text := ""
	if err != nil {
		text = fmt.Sprintf("no holder at %s: while bulkheadd is away, root in a container with CAP_NET_ADMIN could remove the rules in its own namespace (guards stay in force); run bulkheadd holder: %v",
			d.cfg.Holder, err)
	}
	d.warn("holder", text)
}

// takeUp gives the socket that the former daemon had in a namespace; nil: there is none. It is asked for
// again if it was not used.
func (h *holding) takeUp(cookie uint64) *os.File {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.former[heldName(cookie)]
}

// used lets go of the former daemon's socket: the namespace has its own copy.
func (h *holding) used(cookie uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f := h.former[heldName(cookie)]; f != nil {
		_ = f.Close()
		delete(h.former, heldName(cookie))
	}
}

// hold gives a namespace's socket to the holder.
func (d *Daemon) hold(cookie uint64, ns *firewall.Namespace) {
	if d.holding.client == nil || ns == nil {
		return
	}
	file, err := ns.Hold()
	if err == nil {
		err = errors.Join(d.holding.client.Keep(heldName(cookie), file), file.Close())
	}
	d.warnHolder(err)
}

// letGo tells the holder that a namespace's rules are gone.
func (d *Daemon) letGo(cookie uint64) {
	d.holding.used(cookie)
	if d.holding.client == nil {
		return
	}
	if err := d.holding.client.Drop(heldName(cookie)); err != nil {
		d.warnHolder(err)
	}
}

// sweepHolder brings the holder in line with the workloads that there are: it may have been started anew,
// and a socket in it keeps a namespace alive that everybody else has left.
func (d *Daemon) sweepHolder(ctx context.Context) {
	if d.holding.client == nil {
		return
	}
	held, err := d.holding.client.List()
	d.warnHolder(err)
	if err != nil {
		return
	}
	for _, w := range d.local() {
		name := heldName(w.cookie)
		if f := held[name]; f != nil {
			_ = f.Close()
			delete(held, name)
			continue
		}
		// One that ends meanwhile has nothing to hold.
		_ = w.ask(ctx, func(ns *firewall.Namespace) error {
			d.hold(w.cookie, ns)
			return nil
		})
	}
	for name, f := range held {
		_ = f.Close()
		if err := d.holding.client.Drop(name); err != nil {
			d.warnHolder(err)
		}
	}
}
