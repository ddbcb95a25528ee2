package daemon

import (
	"cmp"
	"context"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/runtimes"
)

// identify adds what the container's runtime knows of it, where neither the request nor the
// inventory says whose it is. late says that no runtime could tell yet.
func (d *Daemon) identify(ctx context.Context, req api.CNIRequest, record *StoredWorkload) (late bool) {
	d.mu.Lock()
	_, listed := d.inventory.pods[inventoryKey(record.Namespace, record.Name)]
	former := d.workloads[record.ID]
	d.mu.Unlock()
	if listed || len(record.Labels) > 0 {
		return false
	}
	if former != nil { // one more interface, or started again: a runtime's labels never change
		old := former.stored()
		if record.RuntimeLabels = old.RuntimeLabels; len(old.RuntimeLabels) > 0 {
			record.Namespace, record.Name = old.Namespace, old.Name
			return false
		}
	}
	found, err := d.runtimes.Labels(ctx, record.ID)
	if err != nil {
		d.log.Warn("labels not known yet", "workload", record.Namespace+"/"+record.Name, "err", err)
	}
	if found.Source == "" {
		return true
	}
	d.name(record, req, found)
	return false
}

// name puts what a runtime said into a record. What CNI_ARGS said of the name goes first.
func (d *Daemon) name(record *StoredWorkload, req api.CNIRequest, found runtimes.Found) {
	record.RuntimeLabels = found.Labels
	record.Namespace = cmp.Or(req.Args["K8S_POD_NAMESPACE"], found.Namespace, record.Namespace)
	record.Name = cmp.Or(req.Args["K8S_POD_NAME"], found.Name, record.Name)
}

// awaitLabels asks on for a workload that no runtime knew, until one does, the workload ends, or
// nobody knows for good.
func (d *Daemon) awaitLabels(w *workload, req api.CNIRequest) {
	d.routines.Add(1)
	go func() {
		defer d.routines.Done()
		found, ok := d.runtimes.Await(w.ctx, w.id)
		if !ok {
			return
		}
		d.attaching.Lock()
		defer d.attaching.Unlock()
		d.mu.Lock()
		present := d.workloads[w.id] == w
		d.mu.Unlock()
		if !present {
			return
		}
		record := w.stored()
		d.name(&record, req, found)
		if err := d.store.PutWorkload(record); err != nil {
			d.log.Error("workload not stored", "workload", w.String(), "err", err)
		}
		w.replace(record)
		d.announce(w)
		d.kickAll("labels of " + w.String())
		d.log.Info("labels known", "workload", w.String(), "source", found.Source)
	}()
}
