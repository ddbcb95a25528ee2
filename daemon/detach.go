package daemon

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/firewall"
)

// detach forgets a workload, or one interface of several. A container that is not known is no error:
// DEL comes twice, late, or after our state was lost.
func (d *Daemon) detach(ctx context.Context, id, ifname, cause string) {
	d.attaching.Lock()
	defer d.attaching.Unlock()
	d.mu.Lock()
	w := d.workloads[id]
	d.mu.Unlock()
	if w == nil {
		return
	}
	if rest, left := w.without(ifname); left {
		if err := d.store.PutWorkload(rest); err != nil {
			d.log.Error("workload not stored", "workload", w.String(), "err", err)
		}
		w.replace(rest)
		d.announce(w)
		if err := w.sync(ctx, cause); err != nil {
			d.log.Warn("interface not detached", "workload", w.String(), "err", err)
		}
		return
	}
	d.drop(w, cause, false)
}

// checkAttachment compares the kernel with what should be there.
func (d *Daemon) checkAttachment(ctx context.Context, req api.CNIRequest) error {
	d.mu.Lock()
	w := d.workloads[req.ContainerID]
	d.mu.Unlock()
	if w == nil {
		return refuse(api.NotFound, "container %s: not known; add it again", req.ContainerID)
	}
	cookie, err := firewall.Cookie(req.NetNS)
	if err != nil {
		return refuse(api.NotFound, "workload %s: %w", w, err)
	}
	if cookie != w.cookie {
		return refuse(api.Conflict, "workload %s: %s is another namespace than the one that was added", w, req.NetNS)
	}
	if req.IfName != "" && !w.has(req.IfName) {
		return refuse(api.NotFound, "workload %s: interface %s was never added", w, req.IfName)
	}
	if err := w.verify(ctx); err != nil {
		return refuse(api.Conflict, "workload %s: %w", w, err)
	}
	return nil
}

// collect forgets what hangs on network and is not among valid.
func (d *Daemon) collect(ctx context.Context, network string, valid []api.CNIAttachment) {
	keep := map[api.CNIAttachment]bool{}
	for _, a := range valid {
		keep[a] = true
	}
	d.mu.Lock()
	var gone []api.CNIAttachment
	for id, w := range d.workloads {
		for _, ifc := range w.stored().Interfaces {
			a := api.CNIAttachment{ContainerID: id, IfName: ifc.Name}
			if ifc.Network == network && !keep[a] {
				gone = append(gone, a)
			}
		}
	}
	d.mu.Unlock()
	slices.SortFunc(gone, func(a, b api.CNIAttachment) int {
		return cmp.Or(strings.Compare(a.ContainerID, b.ContainerID), strings.Compare(a.IfName, b.IfName))
	})
	for _, a := range gone {
		d.detach(ctx, a.ContainerID, a.IfName, "GC")
	}
}
